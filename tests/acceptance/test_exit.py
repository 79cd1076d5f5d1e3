"""A program that ends while operations are on their way: they are sent if they can be, and nothing waits for them."""

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

THREADS_CALL_ON = """
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


def test_what_was_submitted_is_sent_before_the_program_ends(
    kv_environ: Mapping[str, str], valkey_node: ValkeyNode
) -> None:
    ended = _run(kv_environ)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with valkey_node.client() as client:
        assert client.llen("kv") == 20


def test_a_program_ends_long_before_the_deadline_when_there_is_no_broker(
    kv_environ: Mapping[str, str], valkey_node: ValkeyNode
) -> None:
    valkey_node.kill()
    ended = _run(kv_environ)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_threads_may_go_on_when_the_main_one_has_ended(kv_environ: Mapping[str, str], worker_node: WorkerNode) -> None:
    assert worker_node.ready()
    ended = _run(kv_environ, THREADS_CALL_ON)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(map(int, ended.stdout.split())) == list(range(1, 81))
