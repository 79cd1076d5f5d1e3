"""The reader of the documents detects their errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, ROOT, read_blocks
from tests.support.reader import Reader, ReadingError
from tests.support.terminal import CHECKED, RUN, SERVERS, Terminal, activated_path


@pytest.fixture(autouse=True)
def _terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", activated_path())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.syspath_prepend(tmp_path)
    # Restores the variable that a document exports.
    monkeypatch.setenv("NAME", "")


def read(directory: Path, text: str) -> None:
    document = directory / "document.md"
    document.write_text(text)
    with Terminal(directory) as terminal:
        Reader(directory, terminal, {"PORT": "8000"}).read(document)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1\n```\ntext\n```python\nprint(x + 1)  # 2\n```",
        "```python\nprint(True)  # True: it is\nprint([1])  # [1]; a list\n```",
        "```python\nfor x in (1, 2):\n    print(x)  # 1, 2\n```",
        "```python\nprint(\n    'a',\n    'b',\n)  # a ...\n```",
        "```python file=kept.py\nx = PORT\n```\n```python\nfrom kept import x\nprint(x)  # 8000\n```",
        "```yaml\nfacade:\n  timeout_seconds: 3\n```",
        "```yaml file=kept.yaml\nfacade:\n  timeout_seconds: 3\n```",
        "```json\n[1]\n```",
        "```text\na diagram\n```",
        "```sh\nmake demo     # a remark\npip install 'kvworker[mcp]'\n```",
        "```sh\nexport NAME=$(printf a)b   # a remark\n```\n```python\nimport os\nprint(os.environ['NAME'])  # ab\n```",
        "```console\n$ kvworker --version\nkvworker ...\n$ kvworker get\nError: ...\n```",
    ],
)
def test_correct_blocks_pass(tmp_path: Path, text: str) -> None:
    read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\n\nprint(1)  # 2\n```", r"document.md:3: the document shows\n2\nbut this was printed:\n1$"),
        ("```python\nprint(1)\n```", r"\(no comment\)"),
        ("```python\nif False:\n    print(1)  # 1\n```", r"\(nothing\)"),
        ("```python\nprint(10)  # 1\n```", "document.md:2"),
        ("```python\nprint(1)  # 10\n```", "document.md:2"),
        ("text\n```\nx\n```", "document.md:2: no rule matches the language ''"),
        ("```rust\nx\n```", "no rule matches the language 'rust'"),
        ("```sh\nrm -r important\n```", "document.md:1: no rule matches the command 'rm -r important'"),
        ("```sh\nkvworker no-such-command\n```", "exit code 2"),
        ("```sh\nkvworker up\n```", "was checked, not run: The test has already run"),
        ("```sh\nmake no-such-target\n```", "was checked, not run: Some targets"),
        ("```sh\npip install 'kvworker[no-such-extra]'\n```", "was checked, not run: It needs a package index"),
        ("```sh\ndocker compose up --scale unknown=2\n```", "was checked, not run: It needs a container engine"),
        ("```console\n$ kvworker --version\nkvworker nine\n```", r"\$ kvworker --version: the document shows"),
        ("```console\n$ kvworker --version\nError: it has none\n```", "exit code 0"),
    ],
)
def test_wrong_blocks_are_reported(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ReadingError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["text\n\n    indented", "```python\nno end"])
def test_malformed_blocks_are_reported(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"document.md:\d: "):
        read(tmp_path, text)


def test_every_rule_matches_a_documented_command() -> None:
    blocks = [block for document in DOCUMENTS for block in read_blocks(document) if block.language in ("sh", "console")]
    commands = [line.removeprefix("$ ") for block in blocks for line in block.text.splitlines()]
    for pattern in (*CHECKED, *SERVERS, *RUN):
        assert any(re.match(pattern, command) for command in commands), pattern
