"""The pages that show something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast, get_args

from starlette.responses import HTMLResponse, RedirectResponse, Response

from kvworker.model import GetResult, UsageOrder, UsageQuery, encode_value, new_operation_id
from kvworker.ops.dashboard.charts import HEIGHT, WIDTH, charts_of
from kvworker.ops.dashboard.context import Visit
from kvworker.ops.dashboard.history import History
from kvworker.ops.dashboard.rendering import make_environment, value_text
from kvworker.ops.dashboard.stores import PAGE_ROWS, Stores

#: The columns of the namespaces, in their order, and what each is called.
_COLUMNS: Final[Mapping[UsageOrder, str]] = {
    "namespace": "Namespace",
    "fullness": "Full",
    "used_bytes": "Used",
    "entry_count": "Entries",
    "record_count": "Operation records",
}
#: A page beyond this one is none.
_LAST_PAGE: Final = 1_000_000
_PAGE_NUMBER: Final = re.compile("[1-9][0-9]{0,6}")


@dataclass
class Pages:
    """Makes the pages.

    Attributes:
        history: The overviews.
        stores: The namespaces and entries.
        allows_writes: True if pages have forms that change something.
    """

    history: History
    stores: Stores
    allows_writes: bool

    def __post_init__(self) -> None:
        self._templates = make_environment()

    async def overview(self, visit: Visit) -> Response:
        """Show what happens now and what happened in the last hour, unless the viewer may not see the whole store."""
        if visit.viewer.prefix:
            return RedirectResponse("/namespaces", HTTPStatus.SEE_OTHER)
        overview = await visit.in_thread(self.history.latest)
        charts = charts_of(self.history.samples())
        return self.render(visit, "overview", overview=overview, charts=charts, width=WIDTH, height=HEIGHT)

    async def namespaces(self, visit: Visit) -> Response:
        """Show namespaces with their usage, sorted and searched."""
        given = visit.request.query_params
        order_by = given.get("sort", "fullness")
        if order_by not in get_args(UsageOrder):
            order_by = "fullness"
        is_descending = given.get("order", "asc" if order_by == "namespace" else "desc") != "asc"
        page = _page_number(given.get("page", ""))
        query = UsageQuery(
            cast(UsageOrder, order_by),
            is_descending,
            search=given.get("search", ""),
            limit=PAGE_ROWS,
            offset=(page - 1) * PAGE_ROWS,
        )
        found = await self.stores.usage(visit.viewer, query)
        last = max(1, -(-found.total_count // PAGE_ROWS))
        return self.render(visit, "namespaces", found=found, query=query, columns=_COLUMNS, page=page, last_page=last)

    async def namespace(self, visit: Visit) -> Response:
        """Show a namespace: its usage, and its keys by prefix."""
        given = visit.request.query_params
        name, prefix = given.get("name", ""), given.get("prefix", "")
        keys = await self.stores.keys(visit.viewer, name, prefix, given.get("cursor"))
        usage = await self.stores.namespace(visit.viewer, name)
        return self.render(visit, "namespace", name=name, prefix=prefix, keys=keys, usage=usage)

    async def clearing(self, visit: Visit) -> Response:
        """Ask whether to clear a namespace."""
        name = visit.request.query_params.get("name", "")
        usage = await self.stores.namespace(visit.viewer, name)
        return self.render(visit, "clearing", name=name, usage=usage)

    async def entry(self, visit: Visit) -> Response:
        """Show an entry: its value, size, TTL and version."""
        given = visit.request.query_params
        namespace, key = given.get("namespace", ""), given.get("key", "")
        found = await self.stores.entry(visit.viewer, namespace, key)
        (text, is_cut), size_bytes = await visit.in_thread(lambda: (value_text(found.value), _size_bytes(found)))
        return self.render(
            visit,
            "entry",
            HTTPStatus.OK if found.found else HTTPStatus.NOT_FOUND,
            entry=found,
            text=text,
            is_cut=is_cut,
            size_bytes=size_bytes,
        )

    def sign_in(self, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        """Ask for a token."""
        context = {"visit": None, "pages": self, "problem": problem}
        return HTMLResponse(self._templates.get_template("sign_in.html").render(context), status)

    def signed_in(self) -> Response:
        """Lead to the overview. A redirection would not do: after one from another site, browsers send no cookie."""
        return HTMLResponse(self._templates.get_template("signed_in.html").render(visit=None, pages=self))

    def problem(self, visit: Visit | None, title: str, text: str, status: HTTPStatus) -> Response:
        """Say what went wrong."""
        context: dict[str, Any] = {"visit": visit, "pages": self, "title": title, "text": text}
        return HTMLResponse(self._templates.get_template("problem.html").render(context), status)

    def render(self, visit: Visit, page: str, status: HTTPStatus = HTTPStatus.OK, /, **context: Any) -> Response:
        """Render a page for a viewer."""
        template = self._templates.get_template(f"{page}.html")
        html = template.render(visit=visit, pages=self, new_operation_id=new_operation_id, **context)
        return HTMLResponse(html, status)


def _page_number(text: str) -> int:
    return min(int(text), _LAST_PAGE) if _PAGE_NUMBER.fullmatch(text) else 1


def _size_bytes(found: GetResult) -> int:
    return len(encode_value(found.value).encode()) if found.found else 0
