"""``make demo``: starts kvworker's embedded stack and the pipeline's worker, runs the pipeline, stops everything.

It exits as ``examples.run`` does: with 1 if a total is wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from kvworker import KeyValueStore
from kvworker.errors import KVStoreError

START_SECONDS = 60
STOP_SECONDS = 30


@contextmanager
def running(command: list[str], log: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to a log; interrupted at the end, however that comes, and killed if it stays."""
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this program alone, which then stops the others in order.
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_store(config: Path, stack: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a worker answers.

    Raises:
        ClickException: the stack ended, or did not answer in time; with the end of its log.
    """
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at and stack.poll() is None:
        if config.exists() and answers(config):
            return
        time.sleep(0.1)
    raise click.ClickException("kvworker did not start:\n" + tail(log))


def answers(config: Path) -> bool:
    """Whether the store that a configuration describes answers a call."""
    try:
        with KeyValueStore.from_config(config) as store:
            store.get("demo", "is-it-there", timeout=2)
    except KVStoreError:
        return False
    return True


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def run_demo(state: Path, packages: tuple[str, ...]) -> int:
    """Start everything in a directory, run the pipeline, stop everything; the pipeline's exit code."""
    config = state / "kvworker.yaml"
    environ = {**os.environ, "KVWORKER_CONFIG": str(config)}
    worker_command = ["celery", "-A", "examples.pipeline", "worker", "-Q", "pipeline", "-c", "2", "-l", "WARNING"]
    with ExitStack() as processes:
        stack_log = state / "up.log"
        stack = processes.enter_context(running(["kvworker", "up", "--state", str(state)], stack_log, os.environ))
        await_store(config, stack, stack_log)
        worker_log = state / "pipeline.log"
        worker = processes.enter_context(running(worker_command, worker_log, environ))
        code = subprocess.call([sys.executable, "-m", "examples.run", *packages], env=environ)  # noqa: S603 - ours
        for process, log in ((worker, worker_log), (stack, stack_log)):
            if process.poll() is not None:
                click.echo(f"a process ended too early:\n{tail(log)}", err=True)
        return code


@click.command()
@click.argument("packages", nargs=-1)
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Keep the state and the logs here.")
def main(packages: tuple[str, ...], state: Path | None) -> None:
    """Run the pipeline over PACKAGES (default: celery and sqlalchemy) on a stack of its own."""
    # So that a plain `kill` unwinds, and stops what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if state is not None:
        state.mkdir(parents=True, exist_ok=True)
        sys.exit(run_demo(state.resolve(), packages))
    with tempfile.TemporaryDirectory(prefix="kvworker-demo-") as temporary:
        code = run_demo(Path(temporary), packages)
    sys.exit(code)


if __name__ == "__main__":
    main()
