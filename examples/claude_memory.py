"""Claude's memory tool on kvworker: what an agent noted in one process, another one reads.

With ``ANTHROPIC_API_KEY`` set, Claude itself decides what to note::

    python -m examples.claude_memory ask user-7 "I take my tea without milk. Remember that."

Without a key, give the commands that Claude would send::

    python -m examples.claude_memory run user-7 '{"command": "view", "path": "/memories"}'

Set ``KVWORKER_CONFIG`` to the configuration of a running kvworker.
"""

from __future__ import annotations

import json
import sys

from anthropic import Anthropic
from anthropic.lib.tools import ToolError

from kvworker import KeyValueStore
from kvworker.integrations.anthropic import KvworkerMemoryTool


def ask(memory: KvworkerMemoryTool, text: str) -> str:
    """Let Claude answer, with its memory."""
    runner = Anthropic().beta.messages.tool_runner(
        model="claude-sonnet-4-5", max_tokens=1024, messages=[{"role": "user", "content": text}], tools=[memory]
    )
    return "\n".join(block.text for block in runner.until_done().content if block.type == "text")


def run(memory: KvworkerMemoryTool, command: str) -> str:
    """Run a command as the client does when Claude sends it."""
    try:
        return str(memory.call(json.loads(command)))
    except ToolError as error:
        return f"error: {error}"


if __name__ == "__main__":
    action, user, argument = sys.argv[1:4]
    with KeyValueStore.from_config() as store:
        tool = KvworkerMemoryTool(store, f"memory:{user}")
        print(ask(tool, argument) if action == "ask" else run(tool, argument))  # noqa: T201 - the program's output
