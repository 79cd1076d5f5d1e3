"""Follows a document as a reader would: runs its blocks in order, and compares their output with the document.

``python -m tests.support.reader DOCUMENT REPLACEMENTS`` does this in the working directory, where ``kvworker up`` must
be running. It fails at the first block whose output differs from the document, or that matches no rule.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import io
import json
import sys
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from kvworker import Settings
from tests.support.documents import Block, read_blocks
from tests.support.terminal import Terminal

#: In a comment, these separate a line's output from the document's remark on it.
_BEFORE_REMARK = (": ", "; ")


class ReadingError(AssertionError):
    """A block behaved differently from what the document shows."""


class Reader:
    """Follows one document in a directory.

    ``replacements`` maps texts of the document to those that the test needs, such as a free port. A block with the
    option ``file`` is saved under that name.
    """

    def __init__(self, directory: Path, terminal: Terminal, replacements: Mapping[str, str]) -> None:
        self._directory = directory
        self._terminal = terminal
        self._replacements = replacements
        # All Python blocks share this module, as if they were typed into one interpreter. It is registered so that
        # libraries find their definitions by the module's name.
        self._module = sys.modules["document"] = ModuleType("document")
        self._rules: Mapping[str, Callable[[Block, str], None]] = {
            "python": self._run_python,
            "sh": self._run_commands,
            "console": self._run_session,
            "yaml": self._load_settings,
            "json": lambda _block, text: json.loads(text),
            # Diagrams.
            "text": lambda _block, _text: None,
        }

    def read(self, document: Path) -> None:
        """Run every block of the document.

        Raises:
            ReadingError: A block's output differs from the document, or the block matches no rule.
        """
        for block in read_blocks(document):
            if block.language not in self._rules:
                raise ReadingError(f"{block.place}: no rule matches the language {block.language!r}")
            text = block.text
            for shown, replacement in self._replacements.items():
                text = text.replace(shown, replacement)
            if name := block.options.get("file"):
                (self._directory / name).write_text(text, encoding="utf-8")
            self._rules[block.language](block, text)

    def _run_python(self, block: Block, text: str) -> None:
        # Other blocks import or run a file.
        if "file" not in block.options:
            run_python(block, text, vars(self._module))

    def _run_commands(self, block: Block, text: str) -> None:
        for command in text.replace("\\\n", " ").splitlines():
            self._type(block, command, fails=False)

    def _run_session(self, block: Block, text: str) -> None:
        for entry in text.removeprefix("$ ").split("\n$ "):
            command, _, shown = entry.partition("\n")
            printed = self._type(block, command, fails="Error: " in shown)
            check_shown(f"{block.place}: $ {command}", shown.rstrip(), printed.rstrip())

    def _type(self, block: Block, command: str, *, fails: bool) -> str:
        try:
            return self._terminal.run(command, fails=fails)
        except AssertionError as error:
            raise ReadingError(f"{block.place}: {error}") from error

    def _load_settings(self, block: Block, text: str) -> None:
        if name := block.options.get("file"):
            Settings.load(self._directory / name)
        else:
            Settings.from_mapping(yaml.safe_load(text))


def run_python(block: Block, text: str, namespace: dict[str, Any]) -> None:
    """Run a block and compare the output of each print with the comment behind it.

    If a print runs several times, the comment lists its outputs, separated by commas.

    Raises:
        ReadingError: An output differs from its comment, or a print has no output or no comment.
    """
    # Shift the lines so that a traceback names those of the document.
    tree = ast.increment_lineno(ast.parse(text), block.line)
    comments = {line + block.line: comment for line, comment in _comments(text).items()}
    printed: dict[int, list[str]] = defaultdict(list)

    def record(*values: object) -> None:
        printed[sys._getframe(1).f_lineno].append(" ".join(map(str, values)))

    namespace["print"] = record
    # Like a notebook, this allows `await` outside of functions; it makes the code a coroutine.
    code = compile(tree, block.document.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    coroutine = eval(code, namespace)  # noqa: S307 - our own document
    if coroutine is not None:
        asyncio.run(coroutine)
    for first, last in _prints(tree):
        outputs = [output for line in range(first, last + 1) for output in printed[line]]
        shown = comments.get(last, "(no comment)")
        check_shown(f"{block.document.name}:{first}", shown, ", ".join(outputs) if outputs else "(nothing)")


def check_shown(place: str, shown: str, printed: str) -> None:
    """Compare the output with what the document shows. There ``...`` matches anything, and a remark may follow.

    Raises:
        ReadingError: They differ.
    """
    with_remark = any(shown.startswith(printed + mark) for mark in _BEFORE_REMARK)
    if not with_remark and not doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS):
        raise ReadingError(f"{place}: the document shows\n{shown}\nbut this was printed:\n{printed}")


def _comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _prints(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """Yield the first and the last line of every call of ``print``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, node.end_lineno or node.lineno


def main() -> None:
    """Read a document in the working directory."""
    document, replacements = Path(sys.argv[1]), json.loads(sys.argv[2])
    # An interactive interpreter puts the working directory first too.
    sys.path.insert(0, "")
    with Terminal(Path.cwd()) as terminal:
        Reader(Path.cwd(), terminal, replacements).read(document)


if __name__ == "__main__":
    main()
