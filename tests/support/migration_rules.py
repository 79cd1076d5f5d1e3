"""Operations on a table in use that a migration's step must avoid. CONTRIBUTING.md lists the alternatives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

_CREATED: Final = re.compile(r"CREATE TABLE (\w+)")
#: Patterns of statements, with the table that they would block or break, and why.
_DANGERS: Final = (
    (r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)\w+ ON (\w+)", "blocks writers while it reads the table"),
    (r"ALTER TABLE (\w+) ADD CONSTRAINT (?!.* NOT VALID$)", "reads the table while it blocks everybody"),
    (r"ALTER TABLE (\w+) ADD COLUMN (?=.* NOT NULL)(?!.* DEFAULT )", "fails if the table has rows"),
    (r"ALTER TABLE (\w+) ADD COLUMN (?=.* DEFAULT [a-z_]+\()", "writes each row again while it blocks everybody"),
    (r"ALTER TABLE (\w+) ALTER COLUMN \w+ (?:SET DATA )?TYPE", "writes each row again while it blocks everybody"),
    (r"ALTER TABLE (\w+) ALTER COLUMN \w+ SET NOT NULL", "reads the table while it blocks everybody"),
    (r"ALTER TABLE (\w+) SET (?:TABLESPACE|LOGGED|UNLOGGED|ACCESS METHOD)", "writes each row again"),
    (r"(?:LOCK|CLUSTER|VACUUM FULL|REINDEX)(?: TABLE)? (\w+)", "blocks the table for as long as it takes"),
    (r"(?:UPDATE|DELETE FROM) (\w+)(?!.* LIMIT )", "holds locks of all rows until the step ends; do it in batches"),
)
_EXPANDING_DANGERS: Final = (
    (r"DROP TABLE (\w+)", "the previous release uses it"),
    (r"ALTER TABLE (\w+) (?:RENAME|DROP)", "the previous release uses it"),
)
#: One row, which workers read twice a minute.
_SMALL: Final = frozenset({"kv_schema_version", "kv_totals"})


def find_dangers(statements: Sequence[str], *, expanding: bool) -> Iterator[str]:
    """Yield the dangers of a step's statements."""
    created: set[str] = set()
    for statement in (" ".join(text.split()) for text in statements):
        for pattern, reason in (*_DANGERS, *(_EXPANDING_DANGERS if expanding else ())):
            match = re.match(pattern, statement)
            if match and match[1] not in created | _SMALL:
                yield f"{statement}: {reason}"
        created.update(_CREATED.findall(statement))
