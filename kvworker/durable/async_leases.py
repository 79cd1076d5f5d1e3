"""Leases and permits of semaphores for coroutines."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from types import TracebackType
from typing import Self
from weakref import ref

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.transport.wake_ups import PermitWatch
from kvworker.durable.grants import Acquisition, Grant, PermitRequest, spread_seconds
from kvworker.durable.holders import PASSING_FAILURES
from kvworker.errors import InvalidRequestError, InvalidValueTypeError, KVStoreError, LeaseLostError
from kvworker.model import AcquirePermitResult

logger = logging.getLogger(__name__)


class AsyncLease:
    """A lease, or a permit of a semaphore, as an asynchronous context manager; see ``Lease``.

    If a coroutine is cancelled while it waits, no lease stays behind: the cancellation waits for the answer to the
    attempt that is under way.

    Args:
        store: The store that keeps the lease.
        request: What to ask for.
    """

    def __init__(self, store: AsyncKeyValueStore, request: PermitRequest) -> None:
        self._store = store
        self._request = request
        self._grant: Grant | None = None
        self._renewal: asyncio.Task[None] | None = None

    @property
    def token(self) -> int:
        """The fencing token; see ``Lease.token``."""
        return self._held().token

    @property
    def lost(self) -> bool:
        """True if the lease was acquired and another holder may have it by now; see ``Lease.lost``."""
        return self._grant is not None and self._grant.is_lost

    def check(self) -> None:
        """Check that the lease is not lost; see ``Lease.check``."""
        self._held().check()

    async def acquire(self) -> Self:
        """Acquire the lease, and wait for it for ``wait_seconds`` at most, and one call's timeout.

        Raises:
            LeaseHeldError: Others hold it.
            InvalidRequestError: This object holds it already.
        """
        if self._grant is not None and not self._grant.is_inherited:
            raise InvalidRequestError("this lease is held already; release it first, or make another one")
        acquisition = Acquisition(self._request)
        try:
            with _Pauses(self._store, self._request) as pauses:
                while not await self._attempt(acquisition, pauses):
                    pass
        except BaseException:
            await self._abandon(acquisition)
            raise
        if self._request.auto_renew:
            self._renewal = asyncio.create_task(_keep_renewing(ref(self), self._held()), name="kvworker-lease")
        return self

    async def _attempt(self, acquisition: Acquisition, pauses: _Pauses) -> bool:
        """Try once, and pause if that fails. True if it succeeded."""
        call = asyncio.ensure_future(self._store.acquire_permit(**acquisition.begin()))
        try:
            result: AcquirePermitResult = await asyncio.shield(call)
        except KVStoreError as error:
            await pauses.pause(acquisition.failed(error))
            return False
        except asyncio.CancelledError:
            # Only its answer tells whether there is a lease to release.
            with suppress(KVStoreError):
                acquisition.grant(await call)
            raise
        grant = acquisition.grant(result)
        if grant is None:
            await pauses.pause(acquisition.refused(result, is_listening=pauses.are_woken))
            return False
        self._grant = grant
        return True

    async def _abandon(self, acquisition: Acquisition) -> None:
        """Release a permit that an attempt has got, or may have got without an answer."""
        self._grant = None
        if acquisition.may_hold:
            with suppress(KVStoreError):
                await self._store.submit("kv_release_permit", acquisition.holder_arguments())

    async def renew(self) -> None:
        """Let the lease expire ``ttl_seconds`` from now; see ``Lease.renew``."""
        await self._renew(self._held(), self._request.timeout)

    async def _renew(self, grant: Grant, timeout: float | None) -> None:
        if grant.is_inherited:
            grant.check()
        began = time.monotonic()
        try:
            await self._store.renew_permit(**grant.arguments(), ttl_seconds=self._request.ttl_seconds, timeout=timeout)
        except (LeaseLostError, InvalidValueTypeError):
            grant.is_refused = True
            raise grant.lost_error() from None
        grant.renewed(began)

    async def renew_in_background(self, grant: Grant) -> None:
        """Renew for the task that does so, with a timeout that leaves time for another attempt."""
        await self._renew(grant, self._request.renewal_timeout(self._store.settings))

    async def release(self) -> bool:
        """Release the lease; see ``Lease.release``."""
        grant = self._held()
        self._grant = None
        if grant.is_inherited:
            return False
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        try:
            return (await self._store.release_permit(**grant.arguments(), timeout=self._request.timeout)).released
        except InvalidValueTypeError:  # another value replaced it
            return False

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._grant is None:
            return  # The block has released it.
        lost_error = self._grant.lost_error()
        try:
            was_held = await self.release()
        except KVStoreError as failure:
            # The work of the block is done. An error here would make a caller repeat it, or hide the block's own.
            if error is None and not isinstance(failure, PASSING_FAILURES):
                raise
            logger.warning("a lease was not released and will expire: %s", type(failure).__name__)
        else:
            if not was_held and error is None:
                raise lost_error

    def _held(self) -> Grant:
        if self._grant is None:
            raise InvalidRequestError("this lease is not held; acquire it first")
        return self._grant


class _Pauses:
    """The pauses of a waiter. A wake-up ends a pause, from the second one on."""

    def __init__(self, store: AsyncKeyValueStore, request: PermitRequest) -> None:
        self._store = store
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._watch: PermitWatch | None = None

    @property
    def are_woken(self) -> bool:
        """True if a wake-up would most likely arrive."""
        return self._watch is not None and self._watch.is_listening

    async def pause(self, seconds: float) -> None:
        """Wait. The watch begins with the first pause, after which the store must be asked again."""
        if self._watch is None:
            request = self._request
            self._watch = self._store.watch_permits(request.namespace, request.name, self._wake)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
            self._woken.clear()
            await asyncio.sleep(spread_seconds())

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._woken.set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._watch is not None:
            self._watch.close()


async def _keep_renewing(reference: ref[AsyncLease], grant: Grant) -> None:
    """Renew a lease until it is lost or forgotten: a lease that its caller has dropped must expire."""
    while not grant.is_lost:
        await asyncio.sleep(grant.request.renewal_seconds)
        lease = reference()
        if lease is None:
            return
        try:
            await lease.renew_in_background(grant)
        except LeaseLostError:
            return
        except Exception as error:  # noqa: BLE001 - the next renewal may succeed, and expiry ends the task
            logger.warning("a lease could not be renewed yet: %s", type(error).__name__)
        del lease
