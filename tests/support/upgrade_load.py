"""A caller of any release: sends each increment twice, and prints what it was told until a file appears.

Run it as a script: ``python upgrade_load.py CONFIG NAME STOP_FILE``. It uses only what every release has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import kvworker

NAMESPACE = "upgrade"
COUNTERS = 8


def main(config: str, name: str, stop_file: str) -> None:
    """Increment counters, and tell each operation id with its value and whether its copy was a replay."""
    stop = Path(stop_file)
    tell(version=kvworker.__version__)
    with kvworker.KeyValueStore.from_config(config) as store:
        number = 0
        while not stop.exists():
            number += 1
            operation_id, key = f"{name}/{number}", f"counter-{number % COUNTERS}"
            first = store.increment(NAMESPACE, key, idempotency_key=operation_id, timeout=30)
            copy = store.increment(NAMESPACE, key, idempotency_key=operation_id, timeout=30)
            store.increment(NAMESPACE, "unnamed", timeout=30)
            same = copy.replayed and (copy.value, copy.version) == (first.value, first.version)
            tell(id=operation_id, key=key, value=first.value, same=same)


def tell(**fields: object) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
