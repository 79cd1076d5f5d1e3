"""The pipeline of the asynchronous store."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Self

from kvworker.client.pipeline.collector import Collector
from kvworker.client.pipeline.delivery import LEFT_BY_AN_ERROR


class AsyncPipeline(Collector):
    """Collects operations and sends them as a few messages; ``kvworker.client.pipeline`` describes it."""

    async def flush(self) -> None:
        """Send the collected operations, and wait for everything that was sent, as ``Pipeline.flush`` does."""
        with closing(self.flushing()) as flushing:
            for arrival, seconds in flushing:
                await asyncio.wait([asyncio.wrap_future(arrival)], timeout=seconds)

    async def __aenter__(self) -> Self:
        self.check_open()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if exc_type is None:
                await self.flush()
        finally:
            self.end(LEFT_BY_AN_ERROR)
