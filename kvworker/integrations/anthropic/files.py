"""The commands of Claude's memory tool, as rounds of calls on the files of a namespace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from anthropic.lib.tools import ToolError
from anthropic.types.beta import (
    BetaMemoryTool20250818CreateCommand,
    BetaMemoryTool20250818DeleteCommand,
    BetaMemoryTool20250818InsertCommand,
    BetaMemoryTool20250818RenameCommand,
    BetaMemoryTool20250818StrReplaceCommand,
    BetaMemoryTool20250818ViewCommand,
)

from kvworker.errors import VersionConflictError
from kvworker.integrations.anthropic.paths import ROOT, below, check_path, parents
from kvworker.integrations.anthropic.text import insert_line, replace_once, show_directory, show_edit, show_file
from kvworker.integrations.entries import Step, apply_steps, list_entries, read_entries
from kvworker.integrations.rounds import Rounds, chunked
from kvworker.model import MAX_BATCH_STEPS, GetResult

#: Each lost race means that another writer changed the file, so this many in a row are a defect.
_ATTEMPTS: Final = 20
_MAX_RENAMED: Final = MAX_BATCH_STEPS // 2


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a namespace: a file's path is its key, and its text the value. Directories are parts of paths.

    Raises:
        ToolError: The command is refused, for a reason that Claude can read.
    """

    namespace: str
    ttl_seconds: float | None

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> Rounds[str]:
        """Show a file's lines, or the names of what a directory holds."""
        path = check_path(command.path)
        file = (yield from read_entries(self.namespace, [path])).get(path)
        if file is not None and path != ROOT:
            return show_file(command.path, _text(file), command.view_range)
        entries = yield from list_entries(self.namespace, below(path))
        if not entries and path != ROOT:
            raise _missing(command.path)
        return show_directory(path, {entry.key.removeprefix(below(path)): entry.size_bytes for entry in entries})

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> Rounds[str]:
        """Create a file that does not exist."""
        path = check_path(command.path)
        yield from self._check_free(path, command.path)
        try:
            yield from apply_steps(self.namespace, [{**self._set(path, command.file_text), "if_absent": True}])
        except VersionConflictError as error:
            raise ToolError(f"File {command.path} already exists") from error
        return f"File created successfully at: {command.path}"

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> Rounds[str]:
        """Replace a text that occurs once in a file."""

        def edit(text: str) -> tuple[str, str]:
            new, line = replace_once(command.path, text, command.old_str, command.new_str or "")
            return new, show_edit(new, line)

        return (yield from self._edit(command.path, edit))

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> Rounds[str]:
        """Insert a text after a line of a file."""

        def edit(text: str) -> tuple[str, str]:
            new = insert_line(text, command.insert_line, command.insert_text)
            return new, f"The file {command.path} has been edited."

        return (yield from self._edit(command.path, edit))

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> Rounds[str]:
        """Delete a file, or a directory with all that it holds."""
        path = check_path(command.path)
        if path == ROOT:
            raise ToolError(f"Cannot delete the {ROOT} directory itself")
        keys = [entry.key for entry in (yield from list_entries(self.namespace, below(path)))]
        if path in (yield from read_entries(self.namespace, [path])):
            keys.append(path)
        if not keys:
            raise ToolError(f"The path {command.path} does not exist")
        yield from self._delete(keys)
        return f"Successfully deleted {command.path}"

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> Rounds[str]:
        """Rename a file, or a directory with all that it holds, in one message."""
        old, new = check_path(command.old_path), check_path(command.new_path)
        if old == ROOT:
            raise ToolError(f"Cannot rename the {ROOT} directory itself")
        if below(new).startswith(below(old)):
            raise ToolError(f"Cannot rename {command.old_path} to {command.new_path}: the one lies in the other")
        yield from self._check_free(new, command.new_path, f"The destination {command.new_path} already exists")
        files: list[Any] = list((yield from read_entries(self.namespace, [old])).values())
        files += yield from list_entries(self.namespace, below(old), with_values=True)
        if not files:
            raise ToolError(f"The path {command.old_path} does not exist")
        if len(files) > _MAX_RENAMED:
            raise ToolError(f"{command.old_path} holds more than {_MAX_RENAMED} files: rename its parts")
        steps: list[Step] = []
        for file in files:
            renamed = self._set(new + file.key.removeprefix(old), file.value)
            steps.append({**renamed, "if_absent": True, "ttl_seconds": self.ttl_seconds or file.ttl_seconds})
            steps.append({"tool": "kv_delete", "key": file.key, "expected_version": file.version})
        try:
            yield from apply_steps(self.namespace, steps)
        except VersionConflictError as error:
            raise ToolError(
                f"{command.old_path} was not renamed, because a file changed meanwhile: view it and try again"
            ) from error
        return f"Successfully renamed {command.old_path} to {command.new_path}"

    def clear(self) -> Rounds[str]:
        """Delete all files."""
        yield from self._delete([entry.key for entry in (yield from list_entries(self.namespace, below(ROOT)))])
        return "All memory cleared"

    def _edit(self, path: str, edit: Callable[[str], tuple[str, str]]) -> Rounds[str]:
        """Change a file's text. If another writer comes between, the edit is tried on the new text."""
        key = check_path(path)
        for _ in range(_ATTEMPTS):
            file = (yield from read_entries(self.namespace, [key])).get(key)
            if file is None or key == ROOT:
                if key == ROOT or (yield from list_entries(self.namespace, below(key))):
                    raise ToolError(f"The path {path} is not a file.")
                raise _missing(path)
            text, answer = edit(_text(file))
            expiry = {"keep_ttl": True} if self.ttl_seconds is None else {}
            try:
                yield from apply_steps(
                    self.namespace, [{**self._set(key, text), **expiry, "expected_version": file.version}]
                )
            except VersionConflictError as error:
                conflict = error
                continue
            return answer
        raise conflict

    def _check_free(self, path: str, shown: str, taken: str = "") -> Rounds[None]:
        """Check that a file may be made: nothing has its path, and its directories are not files."""
        files = yield from read_entries(self.namespace, [path, *parents(path)])
        directory = yield from list_entries(self.namespace, below(path))
        if path == ROOT or path in files or directory:
            raise ToolError(taken or f"File {shown} already exists")
        if files:
            raise ToolError(f"{min(files)} is a file, not a directory")

    def _delete(self, keys: list[str]) -> Rounds[None]:
        for chunk in chunked(keys, MAX_BATCH_STEPS):
            yield from apply_steps(self.namespace, [{"tool": "kv_delete", "key": key} for key in chunk])

    def _set(self, key: str, text: str) -> dict[str, Any]:
        return {"tool": "kv_set", "key": key, "value": text, "ttl_seconds": self.ttl_seconds}


def _text(file: GetResult) -> str:
    if not isinstance(file.value, str):
        raise ToolError(f"{file.key} is not a text file")
    return file.value


def _missing(path: str) -> ToolError:
    return ToolError(f"The path {path} does not exist. Please provide a valid path.")
