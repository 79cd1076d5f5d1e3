"""Checks the paths of Claude's memory tool. A file's path is its key."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from anthropic.lib.tools import ToolError

from kvworker.errors import InvalidKeyError
from kvworker.model import check_key

ROOT: Final = "/memories"


def check_path(path: object) -> str:
    """Return the path without empty parts.

    Raises:
        ToolError: The path does not lie in ``/memories``, holds ``..`` in any spelling, or is too long.
    """
    _, *parts = str(path).split("/")
    if not isinstance(path, str) or not path.startswith("/") or parts[0] != ROOT[1:]:
        raise ToolError(f"Path must start with {ROOT}, got: {path}")
    names = [part for part in parts[1:] if part]
    for name in names:
        # Twice, because a program that reads the name may decode it once more.
        plain = unquote(unquote(name))
        if plain in (".", "..") or any(separator in plain for separator in "/\\\x00"):
            raise ToolError(f"Path {path} would escape {ROOT} directory")
    try:
        return check_key("/".join([ROOT, *names]))
    except InvalidKeyError as error:
        raise ToolError(f"Path {path} is not valid: {error}") from error


def parents(path: str) -> list[str]:
    """Return the directories that hold a file, except ``/memories``."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(3, len(parts))]


def below(path: str) -> str:
    """Return the prefix of all paths in a directory."""
    return path + "/"
