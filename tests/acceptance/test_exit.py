"""A program that ends while operations are in flight: it sends them if it can, and does not wait for results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from tests.support.processes import ValkeyNode, WorkerNode

SUBMITS_AND_ENDS = """
from kvworker import KeyValueStore
store = KeyValueStore.from_config()
for number in range(20):
    store.submit("kv_set", {"namespace": "n", "key": str(number), "value": number}, timeout=600)
"""

THREADS_OUTLIVE_MAIN = """
import threading
from kvworker import KeyValueStore
store = KeyValueStore.from_config()
store.get("n", "k")
def count():
    for _ in range(10):
        print(store.increment("n", "c").value, flush=True)
for _ in range(8):
    threading.Thread(target=count).start()
"""


def _run(environ: Mapping[str, str], program: str = SUBMITS_AND_ENDS) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=60, check=False)


def test_submitted_operations_are_sent_before_the_program_ends(
    kv_environ: Mapping[str, str], valkey_node: ValkeyNode
) -> None:
    ended = _run(kv_environ)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with valkey_node.client() as client:
        assert client.llen("kv") == 20


def test_without_a_broker_a_program_ends_long_before_the_deadline(
    kv_environ: Mapping[str, str], valkey_node: ValkeyNode
) -> None:
    valkey_node.kill()
    ended = _run(kv_environ)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_threads_can_continue_after_the_main_thread_has_ended(
    kv_environ: Mapping[str, str], worker_node: WorkerNode
) -> None:
    assert worker_node.ready()
    ended = _run(kv_environ, THREADS_OUTLIVE_MAIN)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(map(int, ended.stdout.split())) == list(range(1, 81))
