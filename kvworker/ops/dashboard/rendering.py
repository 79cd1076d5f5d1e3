"""Renders templates. Names and values are hostile: they are escaped, and invisible characters are shown."""

from __future__ import annotations

import json
import time
from typing import Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from kvworker.model import JSONValue, escaped, escaped_json
from kvworker.ops.overview.units import bytes_text, count_text, duration_text, fullness_text

_NOTHING: Final = "-"
#: A page shows no more of a value than this.
MOST_CHARACTERS: Final = 100_000
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, indent=2)


def make_environment() -> Environment:
    """Return the environment of the templates."""
    environment = Environment(
        loader=PackageLoader("kvworker.ops.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": bytes_text,
        "duration": lambda seconds: _NOTHING if seconds is None else duration_text(seconds),
        "count": count_text,
        "number": lambda value: _NOTHING if value is None else f"{value:,}",
        "rate": lambda value: f"{value:,.1f}",
        "fullness": fullness_text,
        "clock": lambda at: time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)),
        "visible": lambda name: escaped(str(name)),
    }
    environment.globals["link"] = link
    return environment


def link(path: str, **parameters: object) -> str:
    """Return the address of a page. Parameters that are None or empty are left out."""
    given = {name: str(value) for name, value in parameters.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def value_text(value: JSONValue) -> tuple[str, bool]:
    """Return the beginning of a value as JSON on several lines, and whether there is more of it.

    Every character is visible. A small value with many levels can have a hundred times as many characters on several
    lines, so it is written only as far as it is shown.
    """
    text = ""
    for part in _ENCODER.iterencode(value):
        text += part
        if len(text) > MOST_CHARACTERS:
            break
    shown = "\n".join(map(escaped_json, text[:MOST_CHARACTERS].split("\n")))
    return shown, len(text) > MOST_CHARACTERS
