"""The worker application that ships with kvworker, under a name that no module of a user can hide.

``celery -A tasks`` imports the first module named ``tasks``, and looks in the working directory before everywhere else.
There, a user's own ``tasks.py`` would hide ours. So this module loads ``tasks`` and ``beat_schedule`` from the
directory that holds ``kvworker``.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

_ROOT = Path(__file__).resolve().parents[2]


def _load(name: str) -> ModuleType:
    spec = PathFinder.find_spec(name, [str(_ROOT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"the module {name!r} of kvworker is missing from {_ROOT}; install kvworker again")
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_load("beat_schedule")
app: Celery = _load("tasks").app
