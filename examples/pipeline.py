"""An agent pipeline that has its own Celery application and keeps its shared state in kvworker.

A task reads one file of a package. Tasks run on any number of workers, in any order, and some run twice. They share
three things through kvworker:

* Counters, in a namespace for each package. An increment's idempotency key names the file and its content, so a file
  counts once even if its task runs twice.
* A memo of each file's summary, by content hash. It expires after an hour.
* The progress of a run, and its record. The chord passes the record to the store directly, without a task in between.

Set ``KVWORKER_CONFIG`` to the configuration of a running kvworker, and start the pipeline's worker::

    celery -A examples.pipeline worker -n pipeline@%h -Q pipeline
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from celery import Celery, chord, group

from examples.source_files import package_root, python_files, summarize
from kvworker import KeyValueStore
from kvworker.errors import QueueError, StoreUnavailableError

if TYPE_CHECKING:
    from celery.canvas import Signature

QUEUE = "pipeline"
MEMO = "pipeline.memo"
RUNS = "pipeline.runs"
MEMO_TTL_SECONDS = 3600
RUN_TTL_SECONDS = 86_400

store = KeyValueStore.from_config()

app = Celery("pipeline", broker=store.settings.queue.broker_url, backend=store.settings.queue.result_backend)
app.conf.update(
    # The pipeline has its own queue, and kvworker's worker never waits for a task, so a task may wait for kvworker.
    task_default_queue=QUEUE,
    # A task may run twice without harm, so a message is acknowledged late and survives its worker.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)


def counters_namespace(package: str) -> str:
    """Name the namespace of a package's counters."""
    return f"pipeline.counters.{package}"


def progress_key(run: str) -> str:
    """Name the key in ``RUNS`` that counts the files a run has read."""
    return f"{run}/files-done"


def record_key(run: str, package: str) -> str:
    """Name the key in ``RUNS`` of a run's record of one package."""
    return f"{run}/{package}"


def operation_id(*names: str) -> str:
    """Make a write's idempotency key. It is a hash, since a path may exceed the limit of 255 bytes."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


# A retry is safe: every write below has an idempotency key, or writes the same value again.
@app.task(autoretry_for=(QueueError, StoreUnavailableError), retry_backoff=True, max_retries=3)
def read_file(run: str, package: str, file: str) -> dict[str, Any]:
    """Count one file, and report whether it had a memo and how many counters changed."""
    source = (package_root(package) / file).read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    summary, memo_hit = recall_or_summarize(source, digest)
    pending = [
        store.submit(
            "kv_increment",
            {
                "namespace": counters_namespace(package),
                "key": counter,
                "delta": amount,
                "idempotency_key": operation_id(file, digest, counter),
            },
        )
        for counter, amount in summary.items()
    ]
    replies = [operation.result().to_dict() for operation in pending]
    store.increment(
        RUNS, progress_key(run), ttl_seconds=RUN_TTL_SECONDS, idempotency_key=operation_id(run, package, file)
    )
    return {"memo_hit": memo_hit, "counters_moved": sum(not reply["replayed"] for reply in replies)}


def recall_or_summarize(source: bytes, digest: str) -> tuple[dict[str, int], bool]:
    """Return a file's summary, and whether it came from the memo. A new summary is remembered."""
    memo = store.get(MEMO, digest)
    if memo.found:
        return cast("dict[str, int]", memo.value), True
    summary = summarize(source)
    store.set(MEMO, digest, {**summary}, ttl_seconds=MEMO_TTL_SECONDS)
    return summary, False


@app.task
def sum_up(outcomes: list[dict[str, Any]], run: str, package: str) -> dict[str, Any]:
    """Make the record of a run from the results of its tasks."""
    return {
        "run": run,
        "package": package,
        "files": len(outcomes),
        "memo_hits": sum(outcome["memo_hit"] for outcome in outcomes),
        "counters_moved": sum(outcome["counters_moved"] for outcome in outcomes),
    }


def read_package(run: str, package: str) -> Signature:
    """Make the canvas that reads every file of a package. Its result is that of the record's kv_set."""
    keep_record = store.signature(
        "kv_set", {"namespace": RUNS, "key": record_key(run, package), "ttl_seconds": RUN_TTL_SECONDS}
    )
    header = group(read_file.s(run, package, file) for file in python_files(package))
    # Celery passes sum_up's result to keep_record, as its value.
    return chord(header, sum_up.s(run, package) | keep_record)
