"""Claude's memory tool: Anthropic's own, on a file system, and kvworker's answer alike."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from anthropic.lib.tools import ToolError
from anthropic.lib.tools._beta_builtin_memory_tool import BetaLocalFilesystemMemoryTool

from kvworker import InlineKeyValueStore, InvalidKeyError, InvalidTTLError
from kvworker.integrations.anthropic import AsyncKvworkerMemoryTool, KvworkerMemoryTool
from tests.support.counting import CountingStore

NAMESPACE = "memory:user-7"


@pytest.fixture
def kv_store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store


@pytest.fixture
def tool(kv_store: CountingStore) -> KvworkerMemoryTool:
    return KvworkerMemoryTool(kv_store, NAMESPACE)


def call(tool: Any, command: str, path: str = "/memories/a.md", **options: Any) -> str:
    """Call a tool as Anthropic's client does, and return what Claude reads."""
    paths = {"old_path": path} if command == "rename" else {"path": path}
    try:
        answer = tool.call({"command": command, **paths, **options})
        return str(asyncio.run(answer) if asyncio.iscoroutine(answer) else answer)
    except ToolError as error:
        return f"error: {error}"


_COMMANDS: list[dict[str, Any]] = [
    {"command": "create", "file_text": "one\ntwo\nthree\nfour\n"},
    {"command": "create", "file_text": "again"},
    {"command": "create", "path": "/memories//notes/deep/down/x.md", "file_text": "ü\r\n😀"},
    {"command": "create", "path": "/memories/notes/.hidden", "file_text": ""},
    {"command": "create", "path": "/memories/empty", "file_text": ""},
    {"command": "view", "path": "/memories"},
    {"command": "view", "path": "/memories/notes"},
    {"command": "view", "path": "/memories/nothing"},
    {"command": "view"},
    {"command": "view", "view_range": [2, 3]},
    {"command": "view", "view_range": [3, -1]},
    {"command": "view", "path": "/memories/empty"},
    {"command": "view", "path": "/memories/notes/deep/down/x.md"},
    {"command": "str_replace", "old_str": "two", "new_str": "2\n2b"},
    {"command": "str_replace", "old_str": "absent", "new_str": "x"},
    {"command": "str_replace", "old_str": "o", "new_str": "x"},
    {"command": "str_replace", "path": "/memories/nothing", "old_str": "o", "new_str": "x"},
    {"command": "str_replace", "path": "/memories/notes", "old_str": "o", "new_str": "x"},
    {"command": "view"},
    {"command": "insert", "insert_line": 0, "insert_text": "first\n"},
    {"command": "insert", "insert_line": 6, "insert_text": "last"},
    {"command": "insert", "insert_line": 9, "insert_text": "x"},
    {"command": "insert", "insert_line": -1, "insert_text": "x"},
    {"command": "insert", "path": "/memories/empty", "insert_line": 0, "insert_text": "x\n\n"},
    {"command": "insert", "path": "/memories/nothing", "insert_line": 0, "insert_text": "x"},
    {"command": "view"},
    {"command": "rename", "new_path": "/memories/notes/a2.md"},
    {"command": "rename", "new_path": "/memories/b.md"},
    {"command": "rename", "path": "/memories/empty", "new_path": "/memories/notes/a2.md"},
    {"command": "rename", "path": "/memories/notes", "new_path": "/memories/old/notes"},
    {"command": "rename", "path": "/memories", "new_path": "/memories/x"},
    {"command": "view", "path": "/memories"},
    {"command": "view", "path": "/memories/old/notes/a2.md"},
    {"command": "delete", "path": "/memories/empty"},
    {"command": "delete", "path": "/memories/empty"},
    {"command": "delete", "path": "/memories/old"},
    {"command": "delete", "path": "/memories"},
    {"command": "view", "path": "/memories"},
    {"command": "create", "path": "/etc/passwd", "file_text": "x"},
    {"command": "view", "path": "/memories/../../etc/passwd"},
]


def _comparable(answer: str) -> str:
    """Leave out the sizes of directories, which depend on the file system."""
    return re.sub(r"^[\d.]+[BKMG]\t(/\S*/|/memories\S*)$", r"\1", answer, flags=re.MULTILINE)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_commands_give_the_same_answers(kv_store: CountingStore, tmp_path: Path, is_async: bool) -> None:
    reference = BetaLocalFilesystemMemoryTool(str(tmp_path))
    tool = (AsyncKvworkerMemoryTool if is_async else KvworkerMemoryTool)(kv_store, NAMESPACE)
    for command in _COMMANDS:
        assert _comparable(call(tool, **command)) == _comparable(call(reference, **command)), command
    assert tool.to_dict() == {"type": "memory_20250818", "name": "memory"}
    call(tool, "create", file_text="x")
    cleared = tool.clear_all_memory()
    assert (asyncio.run(cleared) if asyncio.iscoroutine(cleared) else cleared) == "All memory cleared"
    assert kv_store.list_keys(NAMESPACE).entries == ()


def test_a_file_is_an_entry_and_other_entries_are_untouched(kv_store: CountingStore, tool: KvworkerMemoryTool) -> None:
    kv_store.set(NAMESPACE, "other", "x")
    kv_store.set(NAMESPACE, "/memories-old/a", "x")
    kv_store.set(NAMESPACE, "/memories/count", 3)
    call(tool, "create", file_text="text")
    assert kv_store.get(NAMESPACE, "/memories/a.md").value == "text"
    assert call(tool, "view", "/memories/count") == "error: /memories/count is not a text file"
    assert "old" not in call(tool, "view", "/memories")
    tool.clear_all_memory()
    assert [entry.key for entry in kv_store.list_keys(NAMESPACE).entries] == ["/memories-old/a", "other"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "memories/a",
        "/memoriesx/a",
        "/memories/..",
        "/memories/a/../../b",
        "/memories/./a",
        "/memories/%2e%2e/a",
        "/memories/%252e%252e/a",
        "/memories/..%2fa",
        "/memories/a%5c..%5cb",
        "/memories/a\\..\\b",
        "/memories/a\x00b",
        "/memories/" + "x" * 2000,
        "/memories/\ud800",
        None,
        7,
    ],
)
def test_a_path_that_leaves_the_memories_is_refused(
    kv_store: CountingStore, tool: KvworkerMemoryTool, path: Any
) -> None:
    call(tool, "create", "/memories/a", file_text="x")
    kv_store.sent.clear()
    commands: list[tuple[str, dict[str, Any]]] = [
        ("view", {}),
        ("create", {"file_text": "x"}),
        ("str_replace", {"old_str": "x", "new_str": "y"}),
        ("insert", {"insert_line": 0, "insert_text": "x"}),
        ("delete", {}),
        ("rename", {"new_path": "/memories/b"}),
    ]
    for command, options in commands:
        assert re.match("error: (Path|[\\d]+ validation)", call(tool, command, path, **options)), command
    assert call(tool, "rename", "/memories/a", new_path=path).startswith("error: Path")
    assert kv_store.sent == []


def test_edits_at_the_same_time_are_all_made(kv_store: CountingStore) -> None:
    call(KvworkerMemoryTool(kv_store, NAMESPACE), "create", file_text="")
    barrier = threading.Barrier(8, timeout=60)

    def note(number: int) -> str:
        barrier.wait()
        return call(KvworkerMemoryTool(kv_store, NAMESPACE), "insert", insert_line=0, insert_text=f"note {number}")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(note, range(8))) == {"The file /memories/a.md has been edited."}
    text = kv_store.get(NAMESPACE, "/memories/a.md").value
    assert isinstance(text, str)
    assert sorted(text.splitlines()) == [f"note {number}" for number in range(8)]


def test_a_file_that_changes_while_it_is_renamed_is_not_lost(
    kv_store: CountingStore, tool: KvworkerMemoryTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(tool, "create", "/memories/dir/a", file_text="1")
    call(tool, "create", "/memories/dir/b", file_text="2")
    submit = kv_store.submit

    def edit_first(name: str, arguments: Any, **options: Any) -> Any:
        if name == "kv_batch" and arguments["operations"][0]["tool"] == "kv_set":
            monkeypatch.undo()
            kv_store.set(NAMESPACE, "/memories/dir/b", "changed")
        return submit(name, arguments, **options)

    monkeypatch.setattr(kv_store, "submit", edit_first)
    assert "a file changed meanwhile" in call(tool, "rename", "/memories/dir", new_path="/memories/new")
    assert [entry.key for entry in kv_store.list_keys(NAMESPACE).entries] == ["/memories/dir/a", "/memories/dir/b"]
    assert call(tool, "rename", "/memories/dir", new_path="/memories/new").startswith("Successfully")
    assert kv_store.get(NAMESPACE, "/memories/new/b").value == "changed"


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        ("/memories/dir", "/memories/dir/inner", "the one lies in the other"),
        ("/memories/dir/a", "/memories/dir/a/b", "the one lies in the other"),
        ("/memories/dir/a", "/memories/dir/b/c", "/memories/dir/b is a file, not a directory"),
        ("/memories/none", "/memories/x", "does not exist"),
        ("/memories/dir/a", "/memories", "already exists"),
    ],
)
def test_a_rename_that_makes_no_sense_is_refused(
    kv_store: CountingStore, tool: KvworkerMemoryTool, old: str, new: str, answer: str
) -> None:
    call(tool, "create", "/memories/dir/a", file_text="1")
    call(tool, "create", "/memories/dir/b", file_text="2")
    assert answer in call(tool, "rename", old, new_path=new)
    assert "is a file" in call(tool, "create", "/memories/dir/a/b", file_text="x")
    assert "already exists" in call(tool, "create", "/memories/dir", file_text="x")
    assert len(kv_store.list_keys(NAMESPACE).entries) == 2


def test_a_quota_is_told_to_claude_and_writes_renew_a_ttl(kv_store: CountingStore) -> None:
    kv_store.set_quota(NAMESPACE, 50)
    tool = KvworkerMemoryTool(kv_store, NAMESPACE, ttl_seconds=100)
    call(tool, "create", file_text="abc\n")
    answer = call(tool, "insert", insert_line=1, insert_text="x" * 100)
    assert re.match("error: Nothing was changed: .* quota of 50 bytes", answer)
    kv_store.touch(NAMESPACE, "/memories/a.md", 10)
    call(tool, "insert", insert_line=1, insert_text="d")
    assert kv_store.get(NAMESPACE, "/memories/a.md").ttl_seconds == pytest.approx(100, abs=20)
    lasting = KvworkerMemoryTool(kv_store, NAMESPACE)
    call(lasting, "insert", insert_line=1, insert_text="e")
    call(lasting, "rename", new_path="/memories/b.md")
    assert kv_store.get(NAMESPACE, "/memories/b.md").ttl_seconds == pytest.approx(100, abs=20)


def test_many_files_are_deleted_and_too_many_are_not_renamed(kv_store: CountingStore, tool: KvworkerMemoryTool) -> None:
    with kv_store.pipeline() as pipeline:
        for number in range(1100):
            pipeline.set(NAMESPACE, f"/memories/dir/{number}", "x")
    assert "more than 500 files" in call(tool, "rename", "/memories/dir", new_path="/memories/x")
    assert call(tool, "delete", "/memories/dir").startswith("Successfully")
    assert kv_store.list_keys(NAMESPACE).entries == ()


def test_wrong_options_are_refused() -> None:
    with InlineKeyValueStore() as store:
        with pytest.raises(InvalidKeyError):
            KvworkerMemoryTool(store, " ")
        with pytest.raises(InvalidTTLError):
            AsyncKvworkerMemoryTool(store, "n", ttl_seconds=0)
