"""The floor C of the facade's figures: a task that does nothing, in a Celery application as it comes.

Broker and result backend are given from outside (``celery -b URL --result-backend URL``); everything else
is Celery's default.
"""

from __future__ import annotations

from celery import Celery

app = Celery("noop")


@app.task
def noop() -> None:
    """Do nothing."""
