"""Reads the code blocks of the documentation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

#: They have nothing to run, but their links must lead somewhere.
PROJECT_FILES = tuple(ROOT / name for name in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))

_FENCE = "```"


def document_id(document: Path) -> str:
    """Name a document by its path in the repository, for a test's id."""
    return str(document.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block. ``language`` is the first word after the opening fence, ``options`` are the other words.

    ``line`` is the line of the opening fence, counted from 1, so line n of the text is line ``line + n`` of the
    document.
    """

    document: Path
    line: int
    language: str
    text: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The document and line, for error messages."""
        return f"{self.document.name}:{self.line}"


def read_blocks(document: Path) -> list[Block]:
    """Read every block of a document, in order.

    Raises:
        ValueError: A block is indented instead of fenced, which hides its language, or has no closing fence.
    """
    return list(_blocks(document, enumerate(document.read_text(encoding="utf-8").splitlines(), start=1)))


def _blocks(document: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Block]:
    before = ""
    for number, line in lines:
        if line.startswith(_FENCE):
            language, *options = shlex.split(line.removeprefix(_FENCE)) or [""]
            pairs = (option.partition("=") for option in options)
            text = _until_fence(document, number, lines)
            yield Block(document, number, language, text, {name: value for name, _, value in pairs})
        elif line.startswith("    ") and not before.strip():
            raise ValueError(f"{document.name}:{number}: an indented block; use fences, and name its language")
        before = line


def _until_fence(document: Path, start: int, lines: Iterator[tuple[int, str]]) -> str:
    text = ""
    for _, line in lines:
        if line.startswith(_FENCE):
            return text
        text += line + "\n"
    raise ValueError(f"{document.name}:{start}: the block has no closing fence")
