"""The tools: one typed definition of each operation, from which its schemas, checks and manifest entries are made.

The catalogue holds the definitions. ``policy`` decides which persona may call which tool, ``advice`` turns errors into
instructions for a language model, and ``manifest`` renders the definitions for hosts and model providers. This package
may import ``kvworker.settings``, ``kvworker.model`` and ``kvworker.errors``.
"""

from kvworker.tools.arguments import check_arguments
from kvworker.tools.batch import make_step, make_steps, step_parameters
from kvworker.tools.call_ids import with_call_id
from kvworker.tools.catalogue import STEP_TOOLS, TOOLS, find_tool
from kvworker.tools.definition import (
    ACCESS_FLAG,
    ADMIN_FLAG,
    TASK_PREFIX,
    WRITE_FLAG,
    Parameter,
    ResultField,
    Tool,
)

__all__ = [
    "ACCESS_FLAG",
    "ADMIN_FLAG",
    "STEP_TOOLS",
    "TASK_PREFIX",
    "TOOLS",
    "WRITE_FLAG",
    "Parameter",
    "ResultField",
    "Tool",
    "check_arguments",
    "find_tool",
    "make_step",
    "make_steps",
    "step_parameters",
    "with_call_id",
]
