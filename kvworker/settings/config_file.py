"""Where the configuration is read from: one search order for programs, workers and commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kvworker.settings.environment import CONFIG_VARIABLE
from kvworker.settings.private_paths import check_private
from kvworker.settings.yaml_file import read_file

#: The configuration file that ``kvworker up`` writes, relative to the working directory.
UP_CONFIG: Final = Path(".kvworker") / "kvworker.yaml"


def find_file(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the configuration file: the given one, else the environment's, else that of ``kvworker up``, else None."""
    if path is not None and str(path).strip():
        return Path(path)
    if named := environ.get(CONFIG_VARIABLE, "").strip():
        return Path(named)
    # Unlike Path.is_file, this is false where the directory may not be searched.
    return UP_CONFIG if os.path.isfile(UP_CONFIG) else None  # noqa: PTH113


def read_configuration(path: str | Path | None, environ: Mapping[str, str]) -> tuple[Mapping[Any, Any], Path | None]:
    """Return the data and the path of the file that ``find_file`` finds; empty and None without a file.

    Raises:
        ConfigurationError: The file cannot be read, or is not a YAML mapping; or it was found in the working directory
            and another user could have written it.
    """
    file = find_file(path, environ)
    if file is None:
        return {}, None
    is_given = path is not None and bool(str(path).strip())
    if file is UP_CONFIG:
        for place in (file.parent, file):
            check_private(place, instead=f"name a file with --config or {CONFIG_VARIABLE}")
    named_by = "config file" if is_given or file is UP_CONFIG else CONFIG_VARIABLE
    return read_file(file, named_by), file.expanduser()
