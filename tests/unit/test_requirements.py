"""A plain installation, without what the tests bring along, has all that kvworker imports."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions

from packaging.utils import canonicalize_name

from tests.support.documents import ROOT
from tests.support.requirements import installed_with_kvworker

_IMPORTS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ABSENT = set(sys.argv[1:])
sys.meta_path.insert(0, Absent())
from pkgutil import resolve_name
from kvworker.cli.group import COMMANDS
for place in COMMANDS.values():
    resolve_name(place)
import kvworker.adapters.postgres, kvworker.adapters.sqlite, kvworker.client, kvworker.inline, tasks
import celery.bin.celery, celery.backends.redis, kombu.transport.redis, kombu.transport.pyamqp
"""


def test_a_plain_installation_has_all_that_is_imported() -> None:
    brought = installed_with_kvworker()
    absent = [
        module
        for module, distributions in packages_distributions().items()
        if not brought & {canonicalize_name(name) for name in distributions}
    ]
    assert "pytest" in absent
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS, *absent], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr == ""
