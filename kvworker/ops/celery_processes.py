"""How a worker and a beat are started: Celery's own commands on the ``tasks`` that ship with kvworker."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import kvworker
from kvworker.errors import ConfigurationError
from kvworker.settings.root import CONFIG_VARIABLE

#: Where the distribution's modules are: ``kvworker``, ``tasks`` and ``beat_schedule`` side by side.
ROOT = Path(kvworker.__file__).resolve().parent.parent
_MODULES = ("tasks", "beat_schedule")


def celery_command(name: str, arguments: Sequence[str], *, quiet: bool = False) -> list[str]:
    """The command line of ``celery -A tasks worker`` or ``beat`` with this interpreter."""
    return [sys.executable, "-m", "celery", "-A", "tasks", *(["--quiet"] if quiet else []), name, *arguments]


def celery_environment(config: Path | None) -> dict[str, str]:
    """The environment for it: the configuration file, and where to find the modules."""
    environment = dict(os.environ)
    if config is not None:
        environment[CONFIG_VARIABLE] = str(config.resolve())
    if path := _python_path(environment.get("PYTHONPATH", "")):
        environment["PYTHONPATH"] = path
    return environment


def check_modules_are_ours(directory: Path) -> None:
    """See that a process started in ``directory`` imports the ``tasks`` that ships with kvworker.

    Raises:
        ConfigurationError: another module of that name comes first.
    """
    for module in _MODULES:
        # Celery puts the working directory first, whatever else is on the path.
        found = PathFinder.find_spec(module, [str(directory), *_absolute_paths(sys.path)])
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin).resolve()
        if origin not in {ROOT / f"{module}.py", ROOT / module / "__init__.py"}:
            raise ConfigurationError(
                f"{origin} hides the module {module!r} that ships with kvworker ({ROOT});"
                " start it from another directory, or take that one off PYTHONPATH"
            )


def schedule_directory(wanted: Path | None) -> Path:
    """Where beat keeps its schedule: the wanted directory, or ``.kvworker``, or a private temporary one.

    Raises:
        ConfigurationError: the temporary one belongs to someone else.
    """
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True, mode=0o700)
        return wanted
    if Path(".kvworker").is_dir():
        return Path(".kvworker")
    directory = Path(tempfile.gettempdir()) / f"kvworker-{os.getuid()}"
    directory.mkdir(exist_ok=True, mode=0o700)
    found = directory.lstat()
    # Celery unpickles its schedule file: whoever can write it runs code here.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigurationError(f"{directory} is writable by others; give a directory with --state")
    return directory


def _python_path(current: str) -> str:
    paths = _absolute_paths(part for part in current.split(os.pathsep) if part)
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    if ROOT not in installed and str(ROOT) not in paths:
        paths.insert(0, str(ROOT))
    return os.pathsep.join(paths)


def _absolute_paths(paths: object) -> list[str]:
    return [str(Path(path).absolute()) for path in paths]  # type: ignore[attr-defined]
