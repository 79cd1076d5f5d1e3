"""An agent pipeline with a Celery application of its own and its shared state in kvworker.

One task reads one file of a package. Tasks run on any number of workers, in any order, some of them
twice; what they share is kept by kvworker:

* counters, one namespace per package: the idempotency key of an increment names the file and its
  content, so a file counts once, however often its task runs;
* a memo of what was found in a file, by content hash, which expires after an hour;
* the progress of a run, and its record, which the chord hands to the store without a task in between.

Start its worker where ``KVWORKER_CONFIG`` names the configuration of a running kvworker::

    celery -A examples.pipeline worker -Q pipeline
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
    # Its own queue: a task may wait for kvworker because kvworker's worker never waits for a task.
    task_default_queue=QUEUE,
    # Every task may run twice without harm, so none needs to be lost with its worker.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)


def counters_namespace(package: str) -> str:
    """Where the counters of a package are kept."""
    return f"pipeline.counters.{package}"


def progress_key(run: str) -> str:
    """Where in ``RUNS`` the number of files that a run has done is kept."""
    return f"{run}/files-done"


def record_key(run: str, package: str) -> str:
    """Where in ``RUNS`` a run's record of one package is kept."""
    return f"{run}/{package}"


def operation_id(*names: str) -> str:
    """The idempotency key of a write; hashed, since a key has at most 255 bytes and a path may have more."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


# A retry is safe: every write below is idempotent, so what was applied already is not applied again.
@app.task(autoretry_for=(QueueError, StoreUnavailableError), retry_backoff=True, max_retries=3)
def read_file(run: str, package: str, file: str) -> dict[str, Any]:
    """Count one file, and tell whether its memo was there and how many counters moved."""
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
    """The summary of a file from its memo, or else made now and remembered; and which of the two."""
    memo = store.get(MEMO, digest)
    if memo.found:
        return cast("dict[str, int]", memo.value), True
    summary = summarize(source)
    store.set(MEMO, digest, {**summary}, ttl_seconds=MEMO_TTL_SECONDS)
    return summary, False


@app.task
def sum_up(outcomes: list[dict[str, Any]], run: str, package: str) -> dict[str, Any]:
    """The record of a run from what its tasks returned."""
    return {
        "run": run,
        "package": package,
        "files": len(outcomes),
        "memo_hits": sum(outcome["memo_hit"] for outcome in outcomes),
        "counters_moved": sum(outcome["counters_moved"] for outcome in outcomes),
    }


def read_package(run: str, package: str) -> Signature:
    """The canvas that reads every file of a package; its result is what kv_set says of the run's record."""
    keep_record = store.signature(
        "kv_set", {"namespace": RUNS, "key": record_key(run, package), "ttl_seconds": RUN_TTL_SECONDS}
    )
    header = group(read_file.s(run, package, file) for file in python_files(package))
    # The value that keep_record stores is what sum_up returns.
    return chord(header, sum_up.s(run, package) | keep_record)
