"""A support agent of OpenAI's Agents SDK whose conversations lie in kvworker.

Each call is one turn in a new process, and the session remembers the turns before. The model is a stand-in that
needs no key; leave ``model=`` out to use OpenAI's.

Set ``KVWORKER_CONFIG`` to the configuration of a running kvworker, and run::

    python -m examples.support_chat customer-7 "My parcel is late"
    python -m examples.support_chat customer-7 "Hello?"
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from kvworker import AsyncKeyValueStore
from kvworker.integrations.openai_agents import KvworkerSession

MONTH_SECONDS = 30 * 86_400


class StandIn(Model):
    """Answers with what the customer has written so far."""

    async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> ModelResponse:  # noqa: A002, ARG002 - the SDK's names
        """Answer the whole conversation."""
        written = [item["content"] for item in input if item.get("role") == "user"]
        text = ResponseOutputText(text=f"You wrote: {' / '.join(written)}", type="output_text", annotations=[])
        message = ResponseOutputMessage(
            id="message", content=[text], role="assistant", status="completed", type="message"
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Not needed here."""
        raise NotImplementedError


async def answer(store: AsyncKeyValueStore, customer: str, text: str) -> str:
    """Run one turn of a customer's conversation."""
    agent = Agent(name="support", instructions="Be brief.", model=StandIn())
    session = KvworkerSession(customer, store, max_items=100, ttl_seconds=MONTH_SECONDS)
    result = await Runner.run(agent, text, session=session, run_config=RunConfig(tracing_disabled=True))
    return str(result.final_output)


async def main(customer: str, text: str) -> None:
    """Answer a customer."""
    async with AsyncKeyValueStore.from_config() as store:
        print(await answer(store, customer, text))  # noqa: T201 - the program's output


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
