"""The load of durable steps: a recorder, and callers in processes that faults kill and freeze."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psutil

from tests.chaos.cluster import ROOT, Cluster
from tests.chaos.effects import caller, recorder
from tests.chaos.effects.plan import Plan
from tests.chaos.effects.recorder import RecorderClient
from tests.support.forked import ForkedProcess
from tests.support.processes import ProcessNode, running, wait_until

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 60.0


class _Node(ProcessNode):
    """A process of this load, which tells by a line that it is ready."""

    def __init__(self, name: str, module: str, arguments: list[str], directory: Path) -> None:
        command = [sys.executable, "-m", module, *arguments]
        super().__init__(name, command, directory=directory, environ={"PYTHONPATH": str(ROOT)})
        self._skipped = 0

    def start(self) -> None:
        self._skipped = len(self.logs())
        super().start()

    def ready(self) -> bool:
        wait_until(
            lambda: "\n" in self.logs()[self._skipped :] or self.status == "exited",
            timeout_seconds=_START_SECONDS,
            what=f"the start of {self.name}",
        )
        return self.status == "running"


class _CallerNode(_Node):
    """A caller. It is forked, so that a killed one is soon back."""

    def __init__(self, name: str, arguments: list[str], directory: Path) -> None:
        super().__init__(name, caller.__name__, arguments, directory)
        self._arguments = arguments

    def _launch(self) -> ForkedProcess:
        streams = (Path(os.devnull), self._log_path, self._log_path)
        return ForkedProcess(caller.run, [self.name, *self._arguments], self._directory, self._environ, streams)


class EffectsLoad:
    """The callers, and what they and the recorder have written."""

    def __init__(self, cluster: Cluster, plan: Plan, seed: str, clocks_off_seconds: tuple[int, ...]) -> None:
        self.plan = plan
        self.directory = cluster.directory / plan.namespace
        self.directory.mkdir()
        self.effects_file = self.directory / "effects"
        self._recorder = _Node("recorder", recorder.__name__, [str(self.effects_file)], self.directory)
        self._cluster = cluster
        self._seed = seed
        self._clocks = clocks_off_seconds
        self.callers: list[ProcessNode] = []

    @property
    def journals(self) -> list[Path]:
        """The files of all callers."""
        return sorted(self.directory.glob("*.journal"))

    @contextmanager
    def running(self) -> Iterator[RecorderClient]:
        """Start the recorder and the callers. In the end they are killed."""
        with running(self._recorder):
            port = int(self._recorder.logs().split()[0])
            self.callers = [self._caller(number, port, off) for number, off in enumerate(self._clocks)]
            try:
                for node in self.callers:
                    node.start()
                for node in self.callers:
                    assert node.ready(), node.logs()
                yield RecorderClient(port)
            finally:
                for node in self.callers:
                    node.teardown()

    def restart(self, node: ProcessNode) -> None:
        """Start a killed caller again."""
        node.start()
        assert node.ready(), node.logs()

    def finish(self) -> list[str]:
        """Let the callers end their calls.

        Returns:
            A problem for each caller that hangs or has crashed.
        """
        for node in self.callers:
            psutil.Process(node.pid).resume()
            node.kill("SIGTERM")
        return [problem for node in self.callers for problem in _ended(node)]

    def _caller(self, number: int, port: int, clock_off_seconds: int) -> ProcessNode:
        name = f"caller-{number}"
        arguments = [
            *("--config", str(self._cluster.config), "--port", str(port), "--seed", f"{self._seed}/{name}"),
            *("--journal", str(self.directory / f"{name}.journal"), "--name", name),
            *("--plan", json.dumps(asdict(self.plan)), "--clock-off-seconds", str(clock_off_seconds)),
        ]
        return _CallerNode(name, arguments, self.directory)


def _ended(node: ProcessNode) -> Iterator[str]:
    try:
        wait_until(lambda: node.status == "exited", timeout_seconds=_END_SECONDS)
    except AssertionError:
        yield f"{node.name} never came back from its calls"
    else:
        if node.exit_code:
            yield f"{node.name} ended with {node.exit_code}: {node.logs()[-500:]}"
