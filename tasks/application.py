"""The worker's Celery application with every task registered."""

from __future__ import annotations

from kvworker.settings import Settings
from kvworker.worker.celery_worker import WorkerApplication, make_worker_application
from tasks.maintenance import register_maintenance
from tasks.operations import register_operations


def make_worker_app(settings: Settings) -> WorkerApplication:
    """Make the worker application for these settings, and make it Celery's current application.

    Args:
        settings: The settings of the broker, the store and the limits of maintenance.

    Returns:
        The application, with the tasks of all tools and of maintenance.
    """
    app = make_worker_application(settings)
    register_operations(app)
    register_maintenance(app)
    return app
