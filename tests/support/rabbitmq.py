"""A RabbitMQ server for tests, if one is installed."""

from __future__ import annotations

import os
import shutil
import signal as signals
import subprocess
from pathlib import Path

import psutil
from kombu import Connection

from tests.support.processes import ProcessNode, wait_until
from tests.support.servers import free_port


def server_script() -> str | None:
    """The path of the script that starts RabbitMQ, or None without one."""
    # Debian's wrapper in PATH switches to another user; the script that it wraps runs as any user.
    debian = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    return debian if Path(debian).exists() else shutil.which("rabbitmq-server")


class RabbitNode(ProcessNode):
    """A RabbitMQ server on loopback, with its own node name, ports and data directory."""

    def __init__(self, directory: Path) -> None:
        self.port, distribution, self.epmd_port = (free_port() for _ in range(3))
        environ = {
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"kvworker{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "no-config"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "no-environment"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        super().__init__("rabbitmq", [server_script() or ""], directory=directory, environ=environ)
        self.celeryconfig = {"url": self.url, "host_url": self.url}

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def ready(self) -> bool:
        wait_until(self._answers, timeout_seconds=90, what="RabbitMQ's start")
        return True

    def kill(self, signal: str | int = "SIGKILL") -> None:
        number = signals.Signals[str(signal)]
        family = self.children()  # The server is a child of its start script.
        for child in family:
            child.send_signal(number)
        super().kill(signal)
        if number is signals.SIGKILL:
            psutil.wait_procs(family, timeout=20)

    def control(self, *arguments: str) -> None:
        """Run a command of ``rabbitmqctl`` on this node."""
        script = Path(server_script() or "").with_name("rabbitmqctl")
        name = self._environ["RABBITMQ_NODENAME"]
        subprocess.run([script, "-n", name, *arguments], env=self._environ, check=True, capture_output=True, timeout=60)

    def teardown(self) -> None:
        super().teardown()
        port = str(self.epmd_port)
        subprocess.run(["epmd", "-port", port, "-kill"], env={**os.environ, "ERL_EPMD_PORT": port}, check=False)

    def _answers(self) -> bool:
        try:
            with Connection(self.url, connect_timeout=1) as connection:
                connection.ensure_connection(max_retries=0)
        except Exception:  # noqa: BLE001 - a starting broker refuses in many ways
            return False
        return True
