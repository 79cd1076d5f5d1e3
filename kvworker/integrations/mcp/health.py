"""The routes that tell whether the server is alive and ready. They need no token and show nothing else."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kvworker.messaging.queue_readiness import QueueReadiness

logger = logging.getLogger(__name__)

ALIVE_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"


class Health:
    """Answers health checks. ``/healthz`` depends on this process alone, and ``/readyz`` on the queue as well."""

    def __init__(self, readiness: QueueReadiness) -> None:
        self._readiness = readiness
        self._problem = ""
        # The others wait for the answer of the first.
        self._asking = anyio.CapacityLimiter(1)

    def routes(self) -> list[Route]:
        """Return the two routes."""
        return [Route(ALIVE_PATH, self._alive), Route(READY_PATH, self._ready)]

    async def _alive(self, _request: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _request: Request) -> JSONResponse:
        problem = await to_thread.run_sync(self._readiness.problem, limiter=self._asking)
        if problem and problem != self._problem:
            logger.warning("the MCP server is not ready: %s", problem)
        self._problem = problem
        if problem:
            return JSONResponse({"status": "not ready"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"status": "ready"})
