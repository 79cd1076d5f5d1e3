"""A worker of a user's own Celery application, ``tests.support.user_tasks``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import ProcessNode, wait_until


def started_user_worker(directory: Path, environ: Mapping[str, str], url: str, name: str, queues: str) -> ProcessNode:
    """Start a worker that consumes these queues, and wait until it is ready."""
    command = [sys.executable, "-m", "celery", "-A", "tests.support.user_tasks", "worker", "-l", "INFO"]
    options = ["-Q", queues, "--pool=prefork", "--concurrency=1", "-n", f"{name}@%h", "--without-mingle"]
    node = ProcessNode(name, [*command, *options], directory=directory, environ={**environ, "USER_BROKER": url})
    node.start()
    wait_until(lambda: "ready." in node.logs() or node.status == "exited", what=node.logs())
    return node
