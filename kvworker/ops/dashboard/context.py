"""A request of a viewer with access to the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from anyio import to_thread
from starlette.requests import Request

from kvworker.ops.dashboard.viewers import Session, Viewer

_Result = TypeVar("_Result")

#: The message of a page after a change, by the parameter ``done`` of its address.
DONE = {
    "deleted": "The entry was deleted.",
    "missing": "There was no such entry.",
    "cleared": "The namespace was cleared.",
    "quota": "The quota was set.",
    "reset": "The configured quota applies again.",
}


@dataclass(frozen=True)
class Visit:
    """A request, its session, and what the viewer may see."""

    request: Request
    session: Session
    viewer: Viewer

    @property
    def path(self) -> str:
        """The path of the page."""
        return self.request.url.path

    @property
    def done(self) -> str:
        """The message about the change before this page; "" without one."""
        return DONE.get(self.request.query_params.get("done", ""), "")

    async def in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Run something that may wait."""
        return await to_thread.run_sync(work, abandon_on_cancel=True)
