"""A program that ends while operations are on their way: they are sent if they can be, and nothing waits for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from tests.acceptance.processes import ValkeyNode

SUBMITS_AND_ENDS = """
from kvworker import KeyValueStore
store = KeyValueStore.from_config()
for number in range(20):
    store.submit("kv_set", {"namespace": "n", "key": str(number), "value": number}, timeout=600)
"""


def _run(environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", SUBMITS_AND_ENDS]
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
