"""What a message must be before Celery takes it. Pure.

Celery trusts a message's headers and the shape of its body. What is wrong in them raises in the worker's main
process, or in a pool between two steps, and costs a worker or one of its slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery.app.task import Context

from kvworker.model import depth_of

#: Of lists and objects in a body. Beyond some 450 the pool's pickling of it ends the worker's main process.
MAX_DEPTH: Final = 400

#: The headers that Celery works with, by their types; each may be absent or null.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("eta", "expires", "shadow", "root_id", "parent_id", "group", "origin", "argsrepr"), (str,)),
    **dict.fromkeys(("kwargsrepr", "lang"), (str,)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), (int,)),
    **dict.fromkeys(("stamps", "headers"), (dict,)),
    "ignore_result": (bool,),
    "stamped_headers": (list,),
}
#: A header of such a name would stand in for a method of the task's request, or for something of its own.
_RESERVED: Final = frozenset(name for name in dir(Context) if name.startswith("_") or callable(getattr(Context, name)))


def problem_of(message: Any) -> str | None:
    """What is wrong with a message, without what it holds; None if nothing is."""
    problem = _problem_of_headers(message.headers)
    if problem is not None:
        return problem
    try:
        body = message.payload
    except Exception as error:  # noqa: BLE001 - decoders fail in as many ways as there are content types
        # kombu makes one error of all that decoders raise; which it was tells more.
        return f"its body cannot be decoded ({type(error.__context__ or error).__name__})"
    return _problem_of_body(body)


def _problem_of_headers(headers: Mapping[str, Any]) -> str | None:
    if not isinstance(headers.get("id"), str) or not headers["id"]:
        return "its id is no string"
    if not _are_time_limits(headers.get("timelimit")):
        return "its time limits are no pair of numbers"
    for name, types in _TYPES.items():
        if not isinstance(headers.get(name), (*types, type(None))):
            return f"its header {name} is of a wrong type"
    if not all(isinstance(stamp, str) for stamp in headers.get("stamped_headers") or ()):
        return "its header stamped_headers is no list of names"
    if any(name.startswith("_") or name in _RESERVED for name in headers):
        return "it has a header of a name that is not a header's"
    return _problem_of_options(headers)


def _problem_of_body(body: object) -> str | None:
    if not isinstance(body, list | tuple) or len(body) != 3:
        return "its body is not a list of arguments, keywords and options"
    args, kwargs, options = body
    if not (isinstance(args, list | tuple) and isinstance(kwargs, dict) and isinstance(options, dict)):
        return "its arguments are no list, or its keywords or options are no object"
    if depth_of(body, MAX_DEPTH) > MAX_DEPTH:
        return f"its body is nested deeper than {MAX_DEPTH} levels"
    return _problem_of_options(options)


def _problem_of_options(options: Mapping[str, Any]) -> str | None:
    for name in ("callbacks", "errbacks", "chain"):
        signatures = options.get(name)
        if signatures and not (isinstance(signatures, list) and all(map(_is_signature, signatures))):
            return "its callbacks or its chain are no list of signatures"
    if options.get("chord") is not None and not _is_signature(options["chord"]):
        return "its chord is no signature"
    return None


def _is_signature(one: object) -> bool:
    """Whether it is a signature as Celery sends it: it takes all four parts for granted."""
    parts = {"task": str, "args": list | tuple, "kwargs": dict, "options": dict}
    return isinstance(one, dict) and all(isinstance(one.get(name), type_) for name, type_ in parts.items())


def _are_time_limits(limits: object) -> bool:
    if not limits:
        return True
    return isinstance(limits, list) and len(limits) == 2 and all(isinstance(x, int | float | None) for x in limits)
