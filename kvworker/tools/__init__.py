"""The tools: one typed definition for each operation, from which schemas, checks and manifests come."""

from kvworker.tools.arguments import check_arguments
from kvworker.tools.batch import make_steps, step_parameters
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
    "make_steps",
    "step_parameters",
]
