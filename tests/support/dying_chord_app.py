"""A worker where one process is killed, once, at a point of a chord that ``DIES`` names: ``before counting``, when the
result of a part is stored and the part not counted yet, or ``before the body``, when all parts are counted and the body
is not sent yet. ``DIED`` is a file that tells that it has happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from kvworker import Settings
from kvworker.messaging.result_backend import ResultBackend
from tasks.application import make_worker_app

_METHODS = {"before counting": "on_chord_part_return", "before the body": "_chord_publish_claim_expires"}
_died = Path(os.environ["DIED"])
_method = _METHODS[os.environ["DIES"]]
_stock = getattr(ResultBackend, _method)


def _die(self: ResultBackend, *args: Any, **kwargs: Any) -> Any:
    try:
        _died.touch(exist_ok=False)
    except FileExistsError:
        return _stock(self, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


setattr(ResultBackend, _method, _die)
app = make_worker_app(Settings.load())
