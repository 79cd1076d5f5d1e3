"""The application: the pages by their addresses, and the answers to errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from kvworker import errors
from kvworker.messaging.queue_readiness import QueueReadiness
from kvworker.ops.dashboard.changes import Changes
from kvworker.ops.dashboard.context import Visit
from kvworker.ops.dashboard.door import Door, RefusedError
from kvworker.ops.dashboard.forms import FormError, read_form
from kvworker.ops.dashboard.pages import Pages
from kvworker.settings import redacted_url

Answer: TypeAlias = Callable[[Request], Awaitable[Response]]
Show: TypeAlias = Callable[[Visit], Awaitable[Response]]
Change: TypeAlias = Callable[[Visit, Mapping[str, str]], Awaitable[Response]]

#: The status of an error, by the first of these classes that it belongs to.
_STATUS: Final[Mapping[type[Exception], HTTPStatus]] = {
    errors.PolicyDeniedError: HTTPStatus.FORBIDDEN,
    errors.InvalidRequestError: HTTPStatus.BAD_REQUEST,
    errors.OperationRefusedError: HTTPStatus.CONFLICT,
    FormError: HTTPStatus.BAD_REQUEST,
    errors.KVStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def make_app(pages: Pages, door: Door, readiness: QueueReadiness) -> Starlette:
    """Make the ASGI application.

    Args:
        pages: Makes the pages.
        door: Lets viewers in.
        readiness: Tells whether calls could be answered now.
    """
    # The others wait for the answer of the first. They must not use up the threads that pages need.
    asking = CapacityLimiter(1)

    async def alive(_request: Request) -> Response:
        """Answer as long as this process can."""
        return JSONResponse({"status": "alive"})

    async def ready(_request: Request) -> Response:
        """Tell whether calls could be answered. The reason stays out of the answer, because anyone may ask."""
        if await to_thread.run_sync(readiness.problem, abandon_on_cancel=True, limiter=asking):
            return JSONResponse({"status": "not ready"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"status": "ready"})

    async def missing(_request: Request, error: Exception) -> Response:
        """Answer a request for a page that does not exist, or not in this way."""
        status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND)
        text = "There is no such page."
        if not pages.allows_writes:
            text += " This dashboard is read-only: only --allow-writes gives it pages that change something."
        return pages.problem(None, status.phrase, text, status)

    routes = [
        *_pages(pages, door),
        Route("/sign-in", door.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", door.sign_out, methods=["POST"]),
        Route("/healthz", alive),
        Route("/readyz", ready),
        Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: missing})


def _pages(pages: Pages, door: Door) -> list[Route]:
    shown: dict[str, Show] = {
        "/": pages.overview,
        "/namespaces": pages.namespaces,
        "/namespace": pages.namespace,
        "/entry": pages.entry,
    }
    changed: dict[str, Change] = {}
    if pages.allows_writes:
        changes = Changes(pages.stores)
        shown["/namespace/clear"] = pages.clearing
        changed = {
            "/namespace/clear": changes.clear,
            "/namespace/quota": changes.set_quota,
            "/entry/delete": changes.delete,
        }
    return [
        *(Route(path, _answers(pages, door, show)) for path, show in shown.items()),
        *(Route(path, _answers(pages, door, _checked(change)), methods=["POST"]) for path, change in changed.items()),
    ]


def _checked(change: Change) -> Show:
    async def checked(visit: Visit) -> Response:
        """Change something, unless the form was made for another session."""
        form = await read_form(visit.request)
        if not visit.session.accepts(form.get("form_token", "")):
            raise FormError("the form is not of this session; open the page again")
        return await change(visit, form)

    return checked


def _answers(pages: Pages, door: Door, show: Show) -> Answer:
    async def answer(request: Request) -> Response:
        """Answer a viewer with access to the page."""
        try:
            visit = door.admit(request)
        except RefusedError as error:
            return pages.sign_in(error.text, error.status)
        try:
            return await show(visit)
        except (errors.KVStoreError, FormError) as error:
            status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
            return pages.problem(visit, status.phrase, redacted_url(str(error)), status)

    return answer
