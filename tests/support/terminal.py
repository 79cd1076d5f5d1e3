"""A reader's terminal: runs the commands in a document, or checks those that cannot run here."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import yaml

from kvworker.ops.local.child_processes import Child, ChildSpec, running_child
from tests.support.documents import ROOT

_SECONDS = 60

#: Commands that run until they are stopped, and the text that they print once they are ready.
SERVERS: Mapping[str, str] = {
    r"kvworker up --": "Try, in another terminal",
    r"kvworker mcp .*--transport http": "MCP server at",
    r"kvworker worker ": "ready.",
    r"kvworker metrics ": "metrics at",
    r"kvworker dashboard": "dashboard at",
    r"kvworker beat ": "Configuration ->",
    r"celery -A \w+ worker ": "ready.",
    r"uvicorn web:app ": "Application startup complete.",
    r"gunicorn \w+:\w+ ": "Booting worker with pid",
}


def _runs_already(_command: str) -> bool:
    """The test has already run this command, once for all documents."""
    return (Path(".kvworker") / "kvworker.yaml").exists()


def _is_a_target(command: str) -> bool:
    """Some targets run these tests themselves, so check only that it exists; test_demo.py runs the demonstration."""
    makefile = (ROOT / "Makefile").read_text()
    return all(f"\n{target}: " in makefile for target in shlex.split(command, comments=True)[1:])


def _installs_extras(command: str) -> bool:
    """It needs a package index, and its packages are already installed. Check that it names existing extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.search(r"'(?:kvworker|\.)\[([\w,-]+)\]'", command)
    return named is not None and set(named[1].split(",")) <= set(project["optional-dependencies"])


def _names_services(command: str) -> bool:
    """It needs a container engine; tests/acceptance/test_compose.py runs the same commands without one."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return set(re.findall(r"--scale (\w+)=", command)) <= set(services)


def _runs_sql_of_ours(command: str) -> bool:
    """It needs a PostgreSQL superuser; tests/integration/test_roles.py runs these files as the documented users."""
    found = re.search(r"--file (config/\w+\.sql)$", command)
    return found is not None and (ROOT / found[1]).exists()


def _uses_files_that_exist(command: str) -> bool:
    """It needs root, systemd or a cluster; the tests of systemd and Kubernetes start what these files say."""
    named = [word for word in shlex.split(command) if word.startswith(("deploy/", "config/"))]
    return all([*ROOT.glob(word)] for word in named)


def _is_the_probe(command: str) -> bool:
    """It checks every process of this machine, so tests/acceptance/test_health.py runs it on its own workers."""
    return {*shlex.split(command)[1:]} <= {"--ready"}


def _makes_an_rsa_key(command: str) -> bool:
    """The openssl program may be missing; tests/acceptance/test_signed_messages.py makes such keys with a library."""
    return "-newkey rsa:" in command


def _names_a_shell(command: str) -> bool:
    """It writes into the home directory; tests/unit/cli/test_completion.py generates the scripts."""
    return re.match(r"_KVWORKER_COMPLETE=(bash|zsh|fish)_source kvworker > ", command) is not None


def _sources_a_script(command: str) -> bool:
    """It changes the start-up file of the user's shell."""
    return re.search(r">> ~/\.(bash|zsh)rc$", command) is not None


def _makes_the_folder_of_fish(command: str) -> bool:
    """It writes into the home directory."""
    return command == "mkdir -p ~/.config/fish/completions"


def _backs_up_postgres(_command: str) -> bool:
    """It needs a PostgreSQL. tests/integration/test_backup.py runs the line as it is, with its own servers."""
    return True


def _purges_the_queue(command: str) -> bool:
    """It would delete other documents' messages; tests/acceptance/test_restored_store.py runs the line as it is."""
    return command.endswith(" --queues kv")


#: Commands that cannot run here. Each is checked instead; the docstring of the check says why.
CHECKED: Mapping[str, Callable[[str], bool]] = {
    r"kvworker up$": _runs_already,
    r"make ": _is_a_target,
    r"pip install ": _installs_extras,
    r"docker compose ": _names_services,
    r"(useradd|install|systemctl|kubectl|python3 -m venv|/opt/kvworker/bin/pip) ": _uses_files_that_exist,
    r"kvworker-health\b": _is_the_probe,
    r"psql ": _runs_sql_of_ours,
    r"openssl req ": _makes_an_rsa_key,
    r"_KVWORKER_COMPLETE=": _names_a_shell,
    r"echo ": _sources_a_script,
    r"mkdir -p ~/": _makes_the_folder_of_fish,
    r"(pg_dump|createdb|pg_restore|pg_basebackup) ": _backs_up_postgres,
    r"celery -A tasks purge ": _purges_the_queue,
}

#: Commands that end on their own, and the options that the test adds to them.
RUN: Mapping[str, str] = {
    r"kvworker ": "",
    r"printf ": "",
    r"umask \d+$": "",
    r"python -c ": "",
    r"mkdir -m 700 secrets$": "",
    r"chmod 444 secrets/\*$": "",
    # The whole suite takes seconds, and tests/conformance runs it anyway.
    r"python -m pytest test_cloud_adapter\.py$": " --quiet -k increment",
}


def activated_path() -> str:
    """A PATH on which kvworker, celery and python come from this environment."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class Terminal:
    """One terminal in a directory. Exported variables stay set, and servers run until the terminal is closed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._contexts = ExitStack()
        self._servers: list[Child] = []

    def run(self, command: str, *, fails: bool = False) -> str:
        """Run a command, and return its output. If it is a server, wait until it is ready and return nothing.

        Raises:
            AssertionError: The command fails although ``fails`` is False, or succeeds although it is True, or matches
                no rule.
        """
        if exported := re.fullmatch(r"export (\w+)=(.*?)(?:\s+#.*)?", command):
            os.environ[exported[1]] = self._output(f"printf %s {exported[2]}", fails=False)
            return ""
        if check := _find(CHECKED, command):
            assert CHECKED[check](command), f"{command} was checked, not run: {CHECKED[check].__doc__}"
            return ""
        if server := _find(SERVERS, command):
            self._start(command, SERVERS[server])
            return ""
        rule = _find(RUN, command)
        assert rule is not None, f"no rule matches the command {command!r}"
        return self._output(command + RUN[rule], fails=fails)

    def _output(self, command: str, *, fails: bool) -> str:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert bool(process.returncode) == fails, f"{command}: exit code {process.returncode}\n{output}"
        return output

    def _start(self, command: str, ready: str) -> None:
        log = self._directory / f"server-{len(self._servers)}.log"
        log.unlink(missing_ok=True)
        spec = ChildSpec(command, shlex.split(command, comments=True), log, self._directory, stop_seconds=_SECONDS)
        server = self._contexts.enter_context(running_child(spec))
        self._servers.append(server)
        server.wait_until(lambda: ready in log.read_text(), _SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop all servers in parallel, because each takes a second or two."""
        with self._contexts, ThreadPoolExecutor() as threads:
            list(threads.map(Child.stop, self._servers))


def _find(patterns: Iterable[str], command: str) -> str | None:
    return next((pattern for pattern in patterns if re.match(pattern, command)), None)
