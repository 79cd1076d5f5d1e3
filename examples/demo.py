"""``make demo``: start kvworker's embedded stack and the pipeline's worker, run the pipeline, stop everything.

It exits with the code of ``examples.run``, which is 1 if a total is wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from kvworker import KeyValueStore
from kvworker.errors import KVStoreError
from kvworker.ops.local.child_processes import ChildSpec, running_child

BASE_CONFIG = Path(__file__).with_name("kvworker.yaml")
START_SECONDS = 60
# Longer than the parts of the stack take to stop one after the other.
STOP_SECONDS = 90


def run_demo(state: Path, packages: tuple[str, ...]) -> int:
    """Start everything, run the pipeline and stop everything.

    Args:
        state: The directory for the stack's state and all logs.
        packages: The packages that the pipeline reads.

    Returns:
        The pipeline's exit code.

    Raises:
        ChildError: The stack or the pipeline's worker did not start, or ended on its own.
    """
    config = state / "kvworker.yaml"
    environ = {**os.environ, "KVWORKER_CONFIG": str(config)}
    up = _python("kvworker", "up", "--state", str(state), "--config", str(BASE_CONFIG))
    worker = _python(
        "celery", "-A", "examples.pipeline", "worker", "-n", "pipeline@%h", "-Q", "pipeline", "-c", "2", "-l", "WARNING"
    )
    click.echo("Starting the embedded stack and the pipeline's worker ...")
    with running_child(_child("kvworker-up", up, state, environ)) as stack:
        stack.wait_until(lambda: _answers(config), START_SECONDS)
        with running_child(_child("pipeline", worker, state, environ)) as pipeline:
            code = subprocess.call(_python("examples.run", *packages), env=environ)  # noqa: S603 - the command is built here
            for child in (pipeline, stack):
                if not child.is_running:
                    raise child.died()
            return code


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _child(name: str, command: list[str], state: Path, environ: dict[str, str]) -> ChildSpec:
    log = state / f"{name}.log"
    return ChildSpec(name, command, log, cwd=Path.cwd(), env=environ, stop_seconds=STOP_SECONDS)


def _answers(config: Path) -> bool:
    if not config.exists():
        return False
    try:
        with KeyValueStore.from_config(config) as store:
            store.get("demo", "is-it-there", timeout=2)
    except KVStoreError:
        return False
    return True


@click.command()
@click.argument("packages", nargs=-1)
@click.option(
    "--state", type=click.Path(file_okay=False, path_type=Path), help="Keep the state and the logs in this directory."
)
def main(packages: tuple[str, ...], state: Path | None) -> None:
    """Start a stack and run the pipeline on it over PACKAGES (default: celery and sqlalchemy)."""
    # With this, a plain `kill` stops the stack too, like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="kvworker-demo-") as temporary:
        directory = (state or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        try:
            code = run_demo(directory, packages)
        except KVStoreError as error:
            raise click.ClickException(str(error)) from error
    click.echo("Everything is stopped.")
    sys.exit(code)


if __name__ == "__main__":
    main()
