"""The answers that Claude reads, in the words of Anthropic's own memory tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from anthropic.lib.tools import ToolError

_MAX_LINES: Final = 999_999
_NUMBER_WIDTH: Final = len(str(_MAX_LINES))
_DEPTH: Final = 2
_CONTEXT_LINES: Final = 2
#: A file's text is stored as JSON, between quotation marks.
_QUOTATION_BYTES: Final = 2


def show_file(path: str, text: str, view_range: Sequence[int] | None) -> str:
    """Return a file's lines with their numbers, or some of them."""
    lines = text.split("\n")
    if len(lines) > _MAX_LINES:
        raise ToolError(f"File {path} exceeds maximum line limit of 999,999 lines.")
    start, end = 1, len(lines)
    if view_range and len(view_range) == 2:
        start = max(1, view_range[0])
        end = len(lines) if view_range[1] == -1 else view_range[1]
    return f"Here's the content of {path} with line numbers:\n" + _numbered(lines, start, end)


def show_directory(path: str, sizes: Mapping[str, int]) -> str:
    """Return the names and sizes of what a directory holds. ``sizes`` has the files' stored sizes by relative path."""
    tree: dict[str, Any] = {}
    for name, size in sizes.items():
        *directories, file = name.split("/")
        if any(part.startswith(".") for part in (*directories, file)):
            continue
        place = tree
        for directory in directories:
            place = place.setdefault(directory, {})
        place[file] = max(size - _QUOTATION_BYTES, 0)
    lines = [f"{_size(_total(tree))}\t{path}", *_entries(tree, path, _DEPTH)]
    header = f"Here're the files and directories up to 2 levels deep in {path}, excluding hidden items:"
    return "\n".join([header, *lines])


def show_edit(text: str, changed_line: int) -> str:
    """Return the lines around an edit. ``changed_line`` counts from 0."""
    lines = text.split("\n")
    start = max(0, changed_line - _CONTEXT_LINES) + 1
    snippet = _numbered(lines, start, min(len(lines), changed_line + _CONTEXT_LINES + 1))
    return f"The memory file has been edited. Here is the snippet showing the change (with line numbers):\n{snippet}"


def replace_once(path: str, text: str, old: str, new: str) -> tuple[str, int]:
    """Replace the only occurrence of a text.

    Returns:
        The new text, and the line of the change, counted from 0.

    Raises:
        ToolError: The text occurs never or several times.
    """
    found = [position for position in range(len(text)) if text.startswith(old, position)] if old else []
    if not found:
        raise ToolError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
    if len(found) > 1:
        lines = ", ".join(str(text.count("\n", 0, position) + 1) for position in found)
        raise ToolError(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {lines}."
            " Please ensure it is unique"
        )
    return text.replace(old, new), text.count("\n", 0, found[0])


def insert_line(text: str, line: int, inserted: str) -> str:
    """Insert a text after a line. Line 0 is the beginning.

    Raises:
        ToolError: The file has fewer lines.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not 0 <= line <= len(lines):
        raise ToolError(f"Invalid `insert_line` parameter: {line}. It should be within the range [0, {len(lines)}].")
    lines.insert(line, inserted.rstrip("\n"))
    return "\n".join(lines) + "\n"


def _numbered(lines: Sequence[str], start: int, end: int) -> str:
    numbers = enumerate(lines[start - 1 : end], start)
    return "\n".join(f"{str(number).rjust(_NUMBER_WIDTH)}\t{line}" for number, line in numbers)


def _entries(tree: Mapping[str, Any], path: str, depth: int) -> list[str]:
    lines: list[str] = []
    for name, content in sorted(tree.items()):
        place = f"{path}/{name}"
        if not isinstance(content, dict):
            lines.append(f"{_size(content)}\t{place}")
            continue
        lines.append(f"{_size(_total(content))}\t{place}/")
        if depth > 1:
            lines += _entries(content, place, depth - 1)
    return lines


def _total(tree: Mapping[str, Any]) -> int:
    return sum(_total(content) if isinstance(content, dict) else content for content in tree.values())


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in "BKM":
        if size < 1024:
            return f"{size:.1f}".removesuffix(".0") + unit
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + "G"
