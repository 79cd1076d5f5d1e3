"""The worker application: ``celery -A tasks worker`` and ``celery -A tasks beat``.

Its settings come from the file that ``Settings.load`` finds, or else from defaults and the environment. This package
holds the application and the task bodies only, and may import everything in ``kvworker``. Nothing imports it.
"""

from __future__ import annotations

from beat_schedule import beat_schedule
from kvworker.errors import ConfigurationError
from kvworker.settings import Settings
from kvworker.worker import beat_scheduler
from tasks.application import make_worker_app

try:
    settings = Settings.load()
    app = make_worker_app(settings)
except ConfigurationError as error:
    # Celery would show a traceback of everything that it imported, and only then the reason.
    raise SystemExit(f"Error: {error}") from None
app.conf.beat_schedule = beat_schedule(settings)
app.conf.beat_scheduler = beat_scheduler.PATH

__all__ = ["app", "settings"]
