"""The floor C of the facade's figures: a task that does nothing in a stock Celery application.

The command line gives the broker and the result backend (``celery -b URL --result-backend URL``). Everything else is
Celery's default.
"""

from __future__ import annotations

from celery import Celery

app = Celery("noop")


@app.task
def noop() -> None:
    """Do nothing."""
