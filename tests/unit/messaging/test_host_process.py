"""A host program's own Celery and kombu are the stock ones, whatever it does with our client."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, sys, types

import celery.app.amqp, celery.app.builtins, celery.app.control, celery.app.events, celery.backends.redis, celery.canvas
import celery.result, celery.concurrency.prefork, celery.worker.consumer, celery.worker.strategy, celery.apps.worker
import celery.apps.beat, celery.fixups.django
import kombu.pools, kombu.pidbox, kombu.transport.pyamqp, kombu.transport.redis, kombu.utils.json
from celery import Celery

IGNORED = {"__abstractmethods__", "_abc_impl", "__dict__", "__weakref__"}
# Registries that programs add to, by the libraries' own functions.
REGISTRIES = {("kombu.utils.json", "_encoders"), ("kombu.utils.json", "_decoders")}


def everything():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in {"celery", "kombu", "billiard", "vine", "amqp"} or module is None:
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == name:
                for key, member in vars(value).items():
                    if key not in IGNORED:
                        found[name, attribute, key] = member
            elif isinstance(value, types.FunctionType):
                found[name, attribute] = value
            elif isinstance(value, dict) and attribute.startswith(("_", "TRANSPORT", "ALIASES", "BACKEND")):
                if attribute in {"TRANSPORT_ALIASES", "BACKEND_ALIASES", "ALIASES", "_encoders", "_decoders"}:
                    found[name, attribute] = dict(value)
    return found


def locks():
    return {key: member.lock for key, member in everything().items() if hasattr(member, "lock")}


host = Celery("host", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
host.backend, host.amqp, host.pool
before, locks_before = everything(), locks()

from kvworker import AsyncKeyValueStore, KeyValueStore, QueueUnavailableError, Settings

settings = Settings.from_mapping({"queue": {"broker_url": "redis://127.0.0.1:1/0", "connect_timeout_seconds": 5}})
with KeyValueStore(settings) as store:
    store.signature("kv_get", {"namespace": "n", "key": "k"})
    try:
        store.get("n", "k", timeout=2)
    except QueueUnavailableError as error:
        print(type(error).__name__, flush=True)  # before the fork, whose child would print it again
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
after = everything()
new = {key for key in after if key not in before and key[0] in {k[0] for k in before}}
changed = {key for key in before if after.get(key) is not before[key] and after.get(key) != before[key]}
unlocked = {key for key, lock in locks().items() if key in locks_before and locks_before[key] is not lock}
print(sorted(changed), sorted(new), sorted(unlocked), flush=True)
for registry in sorted(REGISTRIES):
    print(sorted(set(map(str, after[registry])) - set(map(str, before[registry]))), flush=True)
assert host.connection().get_transport_cls() is kombu.transport.redis.Transport
if not pid:
    os._exit(0)
"""


def test_importing_and_using_the_client_patches_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    used, *found = done.stdout.splitlines()
    assert used == "QueueUnavailableError"
    # kombu's registry of JSON types gains the tag for values that look like kombu's own tagged types.
    changed = "[('kombu.utils.json', '_decoders'), ('kombu.utils.json', '_encoders')] [] []"
    report = [changed, "['kvworker.literal']", "[\"<class 'kvworker.messaging.wire.Literal'>\"]"]
    assert found == report * 2, "a forked child and its parent"
