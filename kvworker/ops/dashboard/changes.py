"""The forms that change something. Each repeats the id of its operation, so sending it twice applies it once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from kvworker.errors import InvalidRequestError
from kvworker.ops.dashboard.context import Visit
from kvworker.ops.dashboard.rendering import link
from kvworker.ops.dashboard.stores import Stores

_UNITS: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Changes:
    """Deletes entries, sets quotas and clears namespaces, as the viewer's persona."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def delete(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Delete an entry, if it still has the version that was shown."""
        namespace = form.get("namespace", "")
        arguments = {
            "namespace": namespace,
            "key": form.get("key", ""),
            "expected_version": _integer(form.get("version", "")),
        }
        result = await self._change(visit, "kv_delete", arguments, form)
        return _see(link("/namespace", name=namespace, done="deleted" if result["deleted"] else "missing"))

    async def set_quota(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Give a namespace its own quota, or return to the configured one."""
        name, text = form.get("namespace", ""), form.get("quota", "").strip()
        quota_bytes = _bytes(text) if text else None
        await self._change(visit, "kv_set_quota", {"namespace": name, "quota_bytes": quota_bytes}, form)
        return _see(link("/namespace", name=name, done="quota" if text else "reset"))

    async def clear(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Delete every entry of a namespace whose name was typed again."""
        name = form.get("namespace", "")
        if form.get("typed") != name:
            raise InvalidRequestError("the name that you typed is not that of the namespace, so nothing was deleted")
        await self._change(visit, "kv_clear", {"namespace": name}, form)
        return _see(link("/namespace", name=name, done="cleared"))

    async def _change(
        self, visit: Visit, tool: str, arguments: dict[str, Any], form: Mapping[str, str]
    ) -> dict[str, Any]:
        key = form.get("operation_id", "")
        return await self._stores.change(visit.viewer, tool, {**arguments, "idempotency_key": key})


def _see(address: str) -> Response:
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidRequestError("the version is not a number")
    return int(text)


def _bytes(text: str) -> int:
    found = re.fullmatch("([0-9]{1,19}) ?(KiB|MiB|GiB)?", text)
    if found is None:
        raise InvalidRequestError("the quota is not a number of bytes, such as 1048576 or 1 MiB")
    return int(found[1]) * _UNITS[found[2] or ""]
