"""A worker of an older release, which knows neither ``kv_touch`` nor coalesced calls."""

from __future__ import annotations

from kvworker import Settings
from tasks.application import make_worker_app

app = make_worker_app(Settings.load())
app.tasks.unregister("kvworker.kv_touch")
app.tasks.unregister("kvworker.apply_many")
