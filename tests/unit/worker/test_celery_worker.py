"""The start of a worker before its pool exists."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc
from kvworker import Settings
from kvworker.worker.celery_worker import _share_with_children

settings = Settings.from_mapping({"tools": {"kv_store": {"adapters": {"postgres": {"url": "postgresql://h/d"}}}}})
_share_with_children(settings)
before = gc.get_stats()[2]["collections"]
kept = []
for number in range(200_000):
    garbage = []
    garbage.append(garbage)
    if number % 10 == 0:
        kept.append(garbage)
print(gc.get_freeze_count(), gc.get_stats()[2]["collections"] - before)
"""


def test_exempt_objects_do_not_delay_the_collection_of_all_others() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120)
    exempt, collections = map(int, done.stdout.split())
    assert exempt > 4 * 20_000, "so many that the 20,000 kept ones are less than a quarter"
    assert collections > 0
