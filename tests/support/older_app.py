"""A worker as it was before there was ``kv_touch``, and before calls went together."""

from __future__ import annotations

from kvworker import Settings
from tasks.application import make_worker_app

app = make_worker_app(Settings.load())
app.tasks.unregister("kvworker.kv_touch")
app.tasks.unregister("kvworker.apply_many")
