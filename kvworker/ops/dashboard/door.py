"""Admits viewers to the dashboard: holders of a token or of the key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from kvworker.access import FailedAttempts
from kvworker.errors import ConfigurationError
from kvworker.ops.dashboard.context import Visit
from kvworker.ops.dashboard.forms import FormError, read_form
from kvworker.ops.dashboard.pages import Pages
from kvworker.ops.dashboard.viewers import Viewer, Viewers

logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """Somebody is not let in.

    Attributes:
        text: Why, for them.
        status: The status of the answer.
    """

    def __init__(self, text: str = "", status: HTTPStatus = HTTPStatus.UNAUTHORIZED) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class Door:
    """Knows the browsers that have been let in, by a cookie.

    Args:
        pages: Makes the page that asks for a token.
        viewers: Knows the viewers' rights.
        cookie: The name of the cookie.

    Attributes:
        failures: The failed attempts to be let in.
    """

    def __init__(self, pages: Pages, viewers: Viewers, cookie: str) -> None:
        self._pages = pages
        self._viewers = viewers
        self._cookie = cookie
        self.failures = FailedAttempts("the dashboard")

    def admit(self, request: Request) -> Visit:
        """Let a request in.

        Raises:
            RefusedError: It is not let in.
        """
        identity = request.cookies.get(self._cookie, "")
        session = self._viewers.find(identity)
        viewer = None if session is None else self._viewer_of(session.token)
        if session is None or viewer is None:
            self._viewers.close(identity)
            raise RefusedError
        return Visit(request, session, viewer)

    async def sign_in(self, request: Request) -> Response:
        """Ask for a token, or open a session with the one that a form holds, or with the key of the address."""
        if request.method != "POST":
            # A token in an address would be in histories and logs of proxies. A link to the address with somebody
            # else's token would change the viewer's session.
            key = request.query_params.get("key", "") if self._viewers.key else ""
            return await self._open(request, key, self._pages.signed_in) if key else self._pages.sign_in()
        try:
            token = (await read_form(request)).get("token", "").strip()
        except FormError as error:
            return self._pages.sign_in(str(error), HTTPStatus.BAD_REQUEST)
        return await self._open(request, token, lambda: RedirectResponse("/", HTTPStatus.SEE_OTHER))

    async def _open(self, request: Request, token: str, answer: Callable[[], Response]) -> Response:
        try:
            viewer = self._viewer_of(token)
        except RefusedError as error:
            return self._pages.sign_in(error.text, error.status)
        if viewer is None:
            may_go_on = await self.failures.slow_down(request.client.host if request.client else None)
            status = HTTPStatus.UNAUTHORIZED if may_go_on else HTTPStatus.TOO_MANY_REQUESTS
            return self._pages.sign_in("This token opens nothing.", status)
        # A new session: one whose id somebody planted before must not become one that is signed in.
        self._viewers.close(request.cookies.get(self._cookie, ""))
        response = answer()
        # The proxy that ends TLS speaks HTTP with us. A browser tells the scheme that it uses itself.
        is_secure = request.headers.get("origin", "").lower().startswith("https://")
        identity = self._viewers.open(token)
        response.set_cookie(self._cookie, identity, httponly=True, samesite="strict", secure=is_secure)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        self._viewers.close(request.cookies.get(self._cookie, ""))
        response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
        response.delete_cookie(self._cookie)
        return response

    def _viewer_of(self, token: str) -> Viewer | None:
        try:
            return self._viewers.viewer_of(token)
        except ConfigurationError as error:
            logger.error("nobody can be let in: %s", error)  # noqa: TRY400
            text = "Nobody can be let in now. The log of the dashboard says why."
            raise RefusedError(text, HTTPStatus.SERVICE_UNAVAILABLE) from None
