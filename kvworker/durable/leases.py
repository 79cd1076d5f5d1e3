"""Leases and permits of semaphores for threads."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self
from weakref import ref

from kvworker.client.base import KeyValueOperations
from kvworker.client.transport.wake_ups import PermitWatch
from kvworker.durable.grants import Acquisition, Grant, PermitRequest, spread_seconds
from kvworker.durable.holders import PASSING_FAILURES
from kvworker.errors import InvalidRequestError, InvalidValueTypeError, KVStoreError, LeaseLostError

logger = logging.getLogger(__name__)


class Lease:
    """A lease, or a permit of a semaphore, as a context manager. ``KeyValueStore.lease`` and ``semaphore`` make it.

    The block runs while the lease is held. If it was lost by the end of the block, leaving it raises
    ``LeaseLostError``, unless the block raised an error itself. A lease belongs to one holder: do not enter it in two
    threads at once. A forked child does not hold its parent's lease.

    Args:
        store: The store that keeps the lease.
        request: What to ask for.
    """

    def __init__(self, store: KeyValueOperations, request: PermitRequest) -> None:
        self._store = store
        self._request = request
        self._grant: Grant | None = None
        self._renewal: _Renewal | None = None

    @property
    def token(self) -> int:
        """The fencing token, larger than those of all earlier holders. Pass it on to whatever the lease protects.

        Raises:
            InvalidRequestError: The lease is not held.
        """
        return self._held().token

    @property
    def lost(self) -> bool:
        """True if the lease was acquired and another holder may have it by now: its TTL has passed, or it was deleted.

        This asks nothing: a deletion is noticed by the next renewal.
        """
        return self._grant is not None and self._grant.is_lost

    def check(self) -> None:
        """Check that the lease is not lost. Call it before each step that only the holder may do.

        Raises:
            LeaseLostError: It is lost.
            InvalidRequestError: It is not held.
        """
        self._held().check()

    def acquire(self) -> Self:
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
                while not self._attempt(acquisition, pauses):
                    pass
        except BaseException:
            self._abandon(acquisition)
            raise
        if self._request.auto_renew:
            self._renewal = _Renewal(self, self._held())
        return self

    def _attempt(self, acquisition: Acquisition, pauses: _Pauses) -> bool:
        """Try once, and pause if that fails. True if it succeeded."""
        try:
            result = self._store.acquire_permit(**acquisition.begin())
        except KVStoreError as error:
            pauses.pause(acquisition.failed(error))
            return False
        grant = acquisition.grant(result)
        if grant is None:
            pauses.pause(acquisition.refused(result, is_listening=pauses.are_woken))
            return False
        self._grant = grant
        return True

    def _abandon(self, acquisition: Acquisition) -> None:
        """Have a permit released that an attempt without an answer may have got. Otherwise it would expire."""
        if acquisition.may_hold:
            with suppress(KVStoreError):
                self._store.submit("kv_release_permit", acquisition.holder_arguments())

    def renew(self) -> None:
        """Let the lease expire ``ttl_seconds`` from now.

        Raises:
            LeaseLostError: It had expired, or was deleted.
            InvalidRequestError: It is not held.
        """
        grant = self._held()
        self._renew(grant, self._request.timeout)

    def renew_in_background(self, grant: Grant) -> None:
        """Renew for the thread that does so, with a timeout that leaves time for another attempt."""
        self._renew(grant, self._request.renewal_timeout(self._store.settings))

    def _renew(self, grant: Grant, timeout: float | None) -> None:
        if grant.is_inherited:
            grant.check()
        began = time.monotonic()
        try:
            self._store.renew_permit(**grant.arguments(), ttl_seconds=self._request.ttl_seconds, timeout=timeout)
        except (LeaseLostError, InvalidValueTypeError):
            grant.is_refused = True
            raise grant.lost_error() from None
        grant.renewed(began)

    def release(self) -> bool:
        """Release the lease, so that the next holder need not wait for its expiry.

        Returns:
            False if it was lost before. The next holder's lease stays.

        Raises:
            InvalidRequestError: It is not held.
        """
        grant = self._held()
        self._grant = None
        if grant.is_inherited:
            return False
        self._end_renewal()
        try:
            return self._store.release_permit(**grant.arguments(), timeout=self._request.timeout).released
        except InvalidValueTypeError:  # another value replaced it
            return False

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._grant is None:
            return  # The block has released it.
        lost_error = self._grant.lost_error()
        try:
            was_held = self.release()
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

    def _end_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.end()
            self._renewal = None


class _Pauses:
    """The pauses of a waiter. A wake-up ends a pause, from the second one on."""

    def __init__(self, store: KeyValueOperations, request: PermitRequest) -> None:
        self._store = store
        self._request = request
        self._woken = threading.Event()
        self._watch: PermitWatch | None = None

    @property
    def are_woken(self) -> bool:
        """True if a wake-up would most likely arrive."""
        return self._watch is not None and self._watch.is_listening

    def pause(self, seconds: float) -> None:
        """Wait. The watch begins with the first pause, after which the store must be asked again."""
        if self._watch is None:
            request = self._request
            self._watch = self._store.watch_permits(request.namespace, request.name, self._woken.set)
        if self._woken.wait(seconds):
            self._woken.clear()
            time.sleep(spread_seconds())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._watch is not None:
            self._watch.close()


class _Renewal:
    """A thread that renews a lease until it is released, lost or forgotten."""

    def __init__(self, lease: Lease, grant: Grant) -> None:
        # A lease that its caller has dropped must expire.
        self._lease = ref(lease)
        self._grant = grant
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="kvworker-lease", daemon=True).start()

    def end(self) -> None:
        """Begin no other renewal. One that is under way changes nothing once the lease is released."""
        self._ended.set()

    def _run(self) -> None:
        seconds = self._grant.request.renewal_seconds
        while not self._ended.wait(seconds) and not self._grant.is_lost:
            lease = self._lease()
            if lease is None:
                return
            try:
                lease.renew_in_background(self._grant)
            except LeaseLostError:
                return
            except Exception as error:  # noqa: BLE001 - the next renewal may succeed, and expiry ends the thread
                logger.warning("a lease could not be renewed yet: %s", type(error).__name__)
            del lease
