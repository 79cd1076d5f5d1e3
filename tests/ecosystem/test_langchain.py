"""kvworker's tools in LangChain: their definitions, results that a model can read and errors that it can act on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool

from kvworker import AsyncKeyValueStore, InlineKeyValueStore, InvalidRequestError, Settings
from kvworker.errors import SchemaError, VersionConflictError
from kvworker.integrations.langchain import langchain_tools
from kvworker.tools import TOOLS
from kvworker.tools.manifest import plain_schema

_IN_MEMORY = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}}


@pytest.fixture
def store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


@pytest.fixture
def tools(store: InlineKeyValueStore) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in langchain_tools(store)}


def _tool_call(tool: BaseTool, arguments: dict[str, Any], call_id: str | None) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": tool.name, "args": arguments}


def _called(
    tool: BaseTool, arguments: dict[str, Any], call_id: str | None = "call-1", thread_id: str | None = None
) -> ToolMessage:
    """Return the message that a model receives for a tool call."""
    config: RunnableConfig = {} if thread_id is None else {"configurable": {"thread_id": thread_id}}
    message = tool.invoke(_tool_call(tool, arguments, call_id), config)
    assert isinstance(message, ToolMessage)
    return message


def test_every_tool_has_its_own_schema(tools: dict[str, BaseTool]) -> None:
    assert list(tools) == list(TOOLS)
    for name, tool in tools.items():
        function = convert_to_openai_tool(tool)["function"]
        assert function["name"] == name
        assert function["description"] == TOOLS[name].summary
        assert function["parameters"] == plain_schema(TOOLS[name])


def test_only_the_requested_tools(store: InlineKeyValueStore) -> None:
    assert [tool.name for tool in langchain_tools(store, names=["kv_set", "kv_get"])] == ["kv_set", "kv_get"]
    with pytest.raises(InvalidRequestError, match="unknown tool 'kv_fly'"):
        langchain_tools(store, names=["kv_fly"])


def test_only_the_tools_that_the_persona_may_use() -> None:
    flags = ["type.system.kv_store_access", "type.system.kv_store_write"]
    personas = {"reader": {"flags": flags[:1]}, "writer": {"flags": flags}}
    policies = {"default_persona": "reader", "personas": personas}
    with InlineKeyValueStore(Settings.from_mapping({**_IN_MEMORY, "policies": policies})) as store:
        reading = {tool.name for tool in langchain_tools(store)}
        writing = {tool.name for tool in langchain_tools(store.as_persona("writer"))}
        assert {"kv_get", "kv_batch"} < reading < writing
        assert "kv_set" in writing - reading
        assert "kv_set_quota" not in writing
        (setter,) = langchain_tools(store, names=["kv_set"])
        message = _called(setter, {"namespace": "n", "key": "k", "value": 1})
        assert json.loads(str(message.content))["error"]["type"] == "PolicyDeniedError"


def test_a_result_is_a_dict_and_for_a_model_its_json(tools: dict[str, BaseTool]) -> None:
    stored = tools["kv_set"].invoke({"namespace": "n", "key": "k", "value": {"a": [1, None, "é"]}, "ttl_seconds": None})
    assert stored["value"] == {"a": [1, None, "é"]}
    message = _called(tools["kv_get"], {"namespace": "n", "key": "k"})
    assert message.status == "success"
    assert json.loads(str(message.content)) == {
        "namespace": "n",
        "key": "k",
        "found": True,
        "value": {"a": [1, None, "é"]},
        "version": stored["version"],
    }


def test_a_model_passes_a_value_as_json_text(tools: dict[str, BaseTool]) -> None:
    message = _called(tools["kv_set"], {"namespace": "n", "key": "k", "value_json": "8"})
    assert json.loads(str(message.content))["value"] == 8
    operations = [{"tool": "kv_set", "key": "k", "value_json": '"8"'}]
    assert tools["kv_batch"].invoke({"namespace": "n", "operations": operations})["results"][0]["value"] == "8"
    refused = _called(tools["kv_set"], {"namespace": "n", "key": "k", "value_json": "eight"})
    assert "value_json does not hold JSON" in json.loads(str(refused.content))["error"]["message"]


def test_a_batch_and_a_listing(tools: dict[str, BaseTool]) -> None:
    operations = [{"tool": "kv_set", "key": "a", "value": 1}, {"tool": "kv_increment", "key": "a"}]
    done = tools["kv_batch"].invoke({"namespace": "n", "operations": operations})
    assert [step["value"] for step in done["results"]] == [1, 2]
    listed = tools["kv_list_keys"].invoke({"namespace": "n", "include_values": True})
    assert [(entry["key"], entry["value"]) for entry in listed["entries"]] == [("a", 2)]


async def _called_async(tool: BaseTool, arguments: dict[str, Any]) -> Any:
    return await tool.ainvoke(arguments)


def test_asynchronously_over_a_synchronous_store(tools: dict[str, BaseTool]) -> None:
    incremented = asyncio.run(_called_async(tools["kv_increment"], {"namespace": "n", "key": "calls", "delta": 3}))
    assert incremented["value"] == 3
    refused = asyncio.run(_called_async(tools["kv_increment"], {"namespace": "n", "key": "calls", "delta": "3"}))
    assert json.loads(refused)["error"]["type"] == "InvalidRequestError"


@pytest.mark.parametrize(
    ("arguments", "error_type"),
    [
        ({"namespace": " ", "key": "k", "value": 1}, "InvalidKeyError"),
        ({"namespace": "n", "key": "k"}, "InvalidRequestError"),
        ({"namespace": "n", "key": "k", "value": 1, "self": 1, "config": 2, "run_manager": 3}, "InvalidRequestError"),
        ({"namespace": "n", "key": "k", "value": 1, "ttl_seconds": 0}, "InvalidTTLError"),
        ({"namespace": "n", "key": "k", "value": "x" * 2 * 1024 * 1024}, "NamespaceQuotaExceededError"),
        ({"namespace": "n", "key": "taken", "value": 1, "if_absent": True}, "VersionConflictError"),
    ],
)
def test_an_error_says_what_happened_and_what_to_do(
    store: InlineKeyValueStore, tools: dict[str, BaseTool], arguments: dict[str, Any], error_type: str
) -> None:
    store.set("n", "taken", 0)
    message = _called(tools["kv_set"], arguments)
    assert message.status == "error"
    error = json.loads(str(message.content))["error"]
    assert error["type"] == error_type
    assert error["changed"] == "nothing"
    assert error["message"]
    assert error["next"]
    assert store.list_keys("n").entries[0].key == "taken"
    assert len(store.list_keys("n").entries) == 1


class TestCallIds:
    """A conversation that resumes after a crash repeats the tool calls of its last step, with their ids."""

    ARGUMENTS: Final = {"namespace": "n", "key": "calls"}

    def _count(self, tool: BaseTool, *call: str | None) -> tuple[int, bool]:
        result = json.loads(str(_called(tool, self.ARGUMENTS, *call).content))
        return result["value"], result["replayed"]

    def test_the_same_call_is_applied_once(self, tools: dict[str, BaseTool]) -> None:
        counter = tools["kv_increment"]
        assert self._count(counter, "call-1") == (1, False)
        assert self._count(counter, "call-1") == (1, True)
        assert self._count(counter, "call-2") == (2, False)
        again = asyncio.run(counter.ainvoke(_tool_call(counter, self.ARGUMENTS, "call-2")))
        assert json.loads(again.content)["replayed"] is True

    def test_every_write_and_a_batch_are_applied_once(
        self, tools: dict[str, BaseTool], store: InlineKeyValueStore
    ) -> None:
        store.set("n", "held", {"$step": 1, "state": "reserved", "token": 7})
        operations = [{"tool": "kv_increment", "key": "calls"}]
        calls: dict[str, dict[str, Any]] = {
            "kv_set": {**self.ARGUMENTS, "value": 1},
            "kv_batch": {"namespace": "n", "operations": operations},
            "kv_touch": {**self.ARGUMENTS, "ttl_seconds": 60},
            "kv_step_begin": {"namespace": "n", "key": "step"},
            "kv_step_renew": {"namespace": "n", "key": "held", "token": 7},
            "kv_step_finish": {"namespace": "n", "key": "held", "token": 7, "state": "done"},
            "kv_persist": self.ARGUMENTS,
            "kv_acquire_permit": {"namespace": "n", "key": "lease", "holder": "h", "ttl_seconds": 60},
            "kv_renew_permit": {"namespace": "n", "key": "lease", "holder": "h", "ttl_seconds": 60},
            "kv_release_permit": {"namespace": "n", "key": "lease", "holder": "h"},
            "kv_rate_limit": {"namespace": "n", "key": "rate", "limit": 5, "per_seconds": 60},
            "kv_delete": self.ARGUMENTS,
            "kv_append": {**self.ARGUMENTS, "items": [1]},
            "kv_merge": {**self.ARGUMENTS, "patch": {"a": 1}},
            "kv_get_and_delete": self.ARGUMENTS,
            "kv_clear": {"namespace": "n"},
            "kv_set_quota": {"namespace": "n", "quota_bytes": 1000},
        }
        assert {*calls, "kv_increment"} == {name for name, tool in TOOLS.items() if tool.writes}
        for name, arguments in calls.items():
            results = [json.loads(str(_called(tools[name], arguments, name).content)) for _ in range(2)]
            assert [result["replayed"] for result in results] == [False, True], name

    def test_calls_without_an_id_are_different_calls(self, tools: dict[str, BaseTool]) -> None:
        counter = tools["kv_increment"]
        assert [counter.invoke(self.ARGUMENTS)["value"] for _ in range(2)] == [1, 2]
        assert [counter.invoke(_tool_call(counter, self.ARGUMENTS, None))["value"] for _ in range(2)] == [3, 4]

    def test_the_key_that_a_model_gave_counts(self, tools: dict[str, BaseTool]) -> None:
        counter = tools["kv_increment"]
        for call_id in ("call-1", "call-2"):
            message = _called(counter, {**self.ARGUMENTS, "idempotency_key": "step 7"}, call_id)
            assert json.loads(str(message.content))["value"] == 1

    def test_threads_do_not_share_ids(self, tools: dict[str, BaseTool]) -> None:
        counter = tools["kv_increment"]
        assert self._count(counter, "call-1", "thread-1") == (1, False)
        assert self._count(counter, "call-1", "thread-2") == (2, False)
        assert self._count(counter, "call-1", "thread-1") == (1, True)

    def test_a_model_whose_ids_start_again_in_each_turn(self, store: InlineKeyValueStore) -> None:
        (counter,) = langchain_tools(store, names=["kv_increment"], once_per_id=False)
        assert [self._count(counter, "call-1") for _ in range(2)] == [(1, False), (2, False)]


def test_a_host_may_have_errors_raised(store: InlineKeyValueStore) -> None:
    store.set("n", "k", 1)
    (tool,) = langchain_tools(store, names=["kv_set"])
    tool.handle_tool_error = False
    with pytest.raises(ToolException) as raised:
        tool.invoke({"namespace": "n", "key": "k", "value": 2, "if_absent": True})
    assert isinstance(raised.value.__cause__, VersionConflictError)


def test_an_error_that_only_an_operator_can_fix_is_raised(sqlite_url: str) -> None:
    adapters = {"sqlite": {"url": sqlite_url, "migrate_on_start": False}}
    config = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": adapters}}}
    with InlineKeyValueStore(Settings.from_mapping(config)) as store:
        (tool,) = langchain_tools(store, names=["kv_get"])
        with pytest.raises(SchemaError):
            tool.invoke({"namespace": "n", "key": "k"})


def test_a_synchronous_call_over_an_asynchronous_store_does_not_block_the_loop() -> None:
    (tool,) = langchain_tools(AsyncKeyValueStore(Settings.from_mapping(_IN_MEMORY)), names=["kv_get"])

    async def call() -> None:
        tool.invoke({"namespace": "n", "key": "k"})

    with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
        asyncio.run(call())


_WITHOUT_EXTRAS = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("langgraph", "langchain_core"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for module in ("langgraph", "langchain"):
    try:
        importlib.import_module(f"kvworker.integrations.{module}")
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_its_extra_a_module_names_the_extra_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_EXTRAS], capture_output=True, text=True, check=True)
    langgraph, langchain = done.stdout.splitlines()
    assert "pip install '.[langgraph]'" in langgraph
    assert "pip install '.[langchain]'" in langchain
