"""Runs every block of the README and of docs/, each document in its own process, beside one ``kvworker up``."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import clean_environ, running_up
from tests.support.documents import DOCUMENTS, PROJECT_FILES, ROOT, document_id, read_blocks
from tests.support.servers import free_port
from tests.support.terminal import activated_path

#: Keeps LangChain from sending traces, and pytest from loading this suite's slow plugins. Output is unbuffered so that
#: a server's banner appears in its log as soon as it is ready.
ENVIRON = {"LANGSMITH_TRACING": "false", "PYTHONUNBUFFERED": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


#: Ports in the documents. Each is replaced by a free one.
SHOWN_PORTS = ("8765", "8123", "8124", "8125", "9820", "9809", "9810")
#: Paths in the documents that only root could use, and what stands in for them.
SHOWN_PATHS = {
    "/var/lib/kvworker": "beat-state",
    "/etc/kvworker/ca.pem": "ca.pem",
    "/etc/kvworker/tokens": "tokens-of-a-service",
    "/etc/kvworker/kvworker.yaml": "config/kvworker.yaml",
    "/opt/kvworker/bin/kvworker ": "kvworker ",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the repository's files that the documents use, and the file that docs/how-to/deployment.md assumes."""
    home = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "config", home / "config")
    with running_up(home):
        (home / "ca.pem").touch()
        shutil.copy(home / ".kvworker" / "kvworker.yaml", home / "config" / "production.yaml")
        yield home


@pytest.mark.parametrize("document", [*filter(read_blocks, DOCUMENTS)], ids=document_id)
def test_a_reader_gets_what_the_document_shows(document: Path, home: Path) -> None:
    read_as_a_user(document, home)


@pytest.mark.parametrize("name", ["langgraph", "mcp"])
def test_a_page_shows_the_same_when_it_is_run_again(name: str, home: Path) -> None:
    """Its snippets met the entries of the first run, and one ended with a traceback."""
    for _ in range(2):
        read_as_a_user(ROOT / "docs" / "how-to" / f"{name}.md", home)


def read_as_a_user(document: Path, home: Path) -> None:
    """Run every block of a document in its own process, and compare its output."""
    replacements = {**{shown: str(free_port()) for shown in SHOWN_PORTS}, **SHOWN_PATHS}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.reader", str(document), json.dumps(replacements)],
        cwd=home,
        # A pytest that a document runs closes its temporary root to other users, such as that of a test's PostgreSQL.
        env=clean_environ({"PATH": activated_path(), "PYTEST_DEBUG_TEMPROOT": str(home), **ENVIRON}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def anchors(document: Path) -> set[str]:
    """Make the anchors that GitHub gives to a document's headings."""
    text = document.read_text(encoding="utf-8")
    for block in read_blocks(document):
        text = text.replace(block.text, "")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_python_can_be_pasted_into_an_interactive_interpreter(document: Path) -> None:
    """An interactive interpreter needs a blank line after a compound statement."""
    for block in read_blocks(document):
        if block.language != "python":
            continue
        lines = [*block.text.splitlines(), ""]
        for statement in ast.parse(block.text).body:
            is_compound = hasattr(statement, "body")
            assert not is_compound or not lines[statement.end_lineno or 0].strip(), block.place


@pytest.mark.parametrize("document", [*DOCUMENTS, *PROJECT_FILES], ids=document_id)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https:"):
            continue  # the tests have no network
        name, _, anchor = target.partition("#")
        linked = document.parent / name if name else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("document", [*DOCUMENTS, *PROJECT_FILES], ids=document_id)
def test_every_test_file_that_is_named_exists(document: Path) -> None:
    """A claim of the documentation names the test that shows it."""
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`(?:tests/)?((?:acceptance|chaos|conformance|integration|unit)/[\w/]+\.py)`", text):
        assert (ROOT / "tests" / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS[1:], ids=document_id)
def test_every_document_is_in_the_contents_of_the_site(document: Path) -> None:
    contents = (ROOT / "docs/index.rst").read_text(encoding="utf-8").split()
    assert str(document.relative_to(ROOT / "docs").with_suffix("")) in contents
