"""Checks of a message before Celery handles it. Pure.

Celery trusts a message's headers and the shape of its body. An error in them raises in the worker's main process, or
in a pool between two steps, and ends the worker or blocks one of its slots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from celery.app.task import Context

from kvworker.messaging.envelope import MAX_NAME_CHARACTERS, is_name
from kvworker.model import depth_of

#: The maximum nesting of lists and objects in a body. Beyond some 450 levels, pickling the body for the pool ends
#: the worker's main process.
MAX_DEPTH: Final = 400

#: The types of the headers that Celery uses. Each header may be absent or null.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("eta", "expires", "shadow", "origin", "argsrepr", "kwargsrepr", "lang"), (str,)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), (int,)),
    **dict.fromkeys(("stamps", "headers"), (dict,)),
    "ignore_result": (bool,),
    "stamped_headers": (list,),
}
#: The headers that name other tasks. They become keys in Redis, as the id does.
_RELATED: Final = ("root_id", "parent_id", "group")
#: A header with such a name would replace a method or a private attribute of the task's request.
_RESERVED: Final = frozenset(name for name in dir(Context) if name.startswith("_") or callable(getattr(Context, name)))

Headers: TypeAlias = Mapping[str, Any]


def problem_of(message: Any) -> str | None:
    """Check a message for anything that Celery cannot handle.

    Args:
        message: A ``kombu.Message``. Its body is decoded.

    Returns:
        A description that does not quote the message, or None if the message is sound.
    """
    for check in _HEADER_CHECKS:
        problem = check(message.headers)
        if problem is not None:
            return problem
    try:
        body = message.payload
    except Exception as error:  # noqa: BLE001 - decoders fail in as many ways as there are content types
        # kombu wraps every decoder's error in its own; the original says more.
        return f"its body cannot be decoded ({type(error.__context__ or error).__name__}){_hint(message.body)}"
    return _problem_of_body(body)


def _hint(body: Any) -> str:
    """Explain why a body that is JSON cannot be decoded."""
    try:
        json.loads(body)
    except Exception:  # noqa: BLE001 - it may be anything
        return ""
    return "; an object with the keys __type__ and __value__ alone means a type of Celery's, so send it with a facade"


def _problem_of_id(headers: Headers) -> str | None:
    if not is_name(headers.get("id")):
        return f"its id is not printable text of at most {MAX_NAME_CHARACTERS} characters"
    are_names = all(headers.get(name) is None or is_name(headers[name]) for name in _RELATED)
    return None if are_names else "the id of a related task is not printable text"


def _problem_of_time_limits(headers: Headers) -> str | None:
    limits = headers.get("timelimit")
    if not limits:
        return None
    is_pair = isinstance(limits, list) and len(limits) == 2 and all(isinstance(x, int | float | None) for x in limits)
    return None if is_pair else "its time limits are not a pair of numbers"


def _problem_of_types(headers: Headers) -> str | None:
    for name, types in _TYPES.items():
        if not isinstance(headers.get(name), (*types, type(None))):
            return f"its header {name} is of a wrong type"
    return None


def _problem_of_stamps(headers: Headers) -> str | None:
    are_names = all(isinstance(stamp, str) for stamp in headers.get("stamped_headers") or ())
    return None if are_names else "its header stamped_headers is not a list of names"


def _problem_of_names(headers: Headers) -> str | None:
    is_reserved = any(name.startswith("_") or name in _RESERVED for name in headers)
    return "it has a header with a reserved name" if is_reserved else None


def _problem_of_options(options: Mapping[str, Any]) -> str | None:
    for name in ("callbacks", "errbacks", "chain"):
        signatures = options.get(name)
        if signatures and not (isinstance(signatures, list) and all(map(_is_signature, signatures))):
            return "its callbacks or its chain are not a list of signatures"
    if options.get("chord") is not None and not _is_signature(options["chord"]):
        return "its chord is not a signature"
    return None


#: In order: a later check relies on the types that an earlier one has checked.
_HEADER_CHECKS: Final[tuple[Callable[[Headers], str | None], ...]] = (
    _problem_of_id,
    _problem_of_time_limits,
    _problem_of_types,
    _problem_of_stamps,
    _problem_of_names,
    _problem_of_options,
)


def _problem_of_body(body: object) -> str | None:
    if not isinstance(body, list | tuple) or len(body) != 3:
        return "its body is not a list of arguments, keywords and options"
    args, kwargs, options = body
    if not (isinstance(args, list | tuple) and isinstance(kwargs, dict) and isinstance(options, dict)):
        return "its arguments are not a list, or its keywords or options are not an object"
    if depth_of(body, MAX_DEPTH) > MAX_DEPTH:
        return f"its body is nested deeper than {MAX_DEPTH} levels"
    return _problem_of_options(options)


def _is_signature(candidate: object) -> bool:
    """Tell whether it has all four parts that Celery sends in a signature and expects of one."""
    parts = {"task": str, "args": list | tuple, "kwargs": dict, "options": dict}
    return isinstance(candidate, dict) and all(isinstance(candidate.get(name), type_) for name, type_ in parts.items())
