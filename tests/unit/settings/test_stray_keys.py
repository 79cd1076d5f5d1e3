"""Keys of ours that slid out of their block are refused. A host program's keys beside them are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings


def load(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "kvworker.yaml"
    file.write_text(text, encoding="utf-8")
    return Settings.load(file, environ={})


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    return str(caught.value)


KEY = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f"policies:\nsigning_key: {KEY}\n",
            "signing_key: it does nothing here; indent it into policies",
        ),
        (
            "policies:\npersonas:\n  reader:\n    flags: [a]\n",
            "personas: it does nothing here; indent it into policies",
        ),
        (
            "policies:\n  personas:\nreader:\n  flags: [a]\n",
            "reader: it does nothing here; indent it into policies.personas,"
            " or, if it is another program's, move it away from below policies",
        ),
        (
            "queue:\n  queue_name: kv\nbroker_url: redis://broker/0\n",
            "broker_url: it does nothing here; indent it into queue",
        ),
        ("queue:\nBroker-URL: redis://broker/0\n", "Broker-URL: it does nothing here; indent it into queue"),
        ("facade:\nmodels: [1]\ntimeout_seconds: 9\n", "timeout_seconds: it does nothing here; indent it into facade"),
        (
            "conversation_store:\nurl: postgresql://h/d\n",
            "url: it does nothing here; indent it into conversation_store,"
            " or, if it is another program's, move it away from below conversation_store",
        ),
        (
            "tools:\n  kv_store:\n    adapters:\npostgres:\n  url: postgresql://h/d\n",
            "postgres: it does nothing here; indent it into tools.kv_store.adapters,"
            " or, if it is another program's, move it away from below tools",
        ),
        (
            "tools:\n  kv_store:\n  default_adapter: sqlite\n",
            "tools.default_adapter: it does nothing here; indent it into tools.kv_store",
        ),
        (
            "tools:\n  kv_store:\n    adapters:\n      postgres: {prepare_threshold: 2}\n      pool: {size: 3}\n",
            "tools.kv_store.adapters.pool: it does nothing here; indent it into tools.kv_store.adapters.postgres,"
            " or, if it is another program's, move it away from below tools.kv_store.adapters.postgres",
        ),
        (
            "tools:\n  kv_store:\n  queue:\n    broker_url: redis://broker/0\n",
            "tools.queue: it does nothing here; it belongs at the top level, without indentation",
        ),
        (
            "kvworker:\n  queue:\n    broker_url: redis://broker/0\n",
            "kvworker.queue: it does nothing here; it belongs at the top level, without indentation",
        ),
    ],
)
def test_a_key_outside_its_block_is_one_exact_line(tmp_path: Path, text: str, line: str) -> None:
    assert refusal(tmp_path, text) == line


def test_a_key_of_several_blocks_names_them_all(tmp_path: Path) -> None:
    message = refusal(tmp_path, "models: [1]\nnamespace_quota_bytes: 5\n")
    assert "tools.kv_store.adapters.postgres or tools.kv_store.adapters.sqlite" in message


def test_the_record_retention_belongs_into_maintenance_alone(tmp_path: Path) -> None:
    message = refusal(tmp_path, "maintenance:\noperation_retention_seconds: 9000\n")
    assert message == "operation_retention_seconds: it does nothing here; indent it into maintenance"


@pytest.mark.parametrize(
    "text",
    [
        "url: https://host.example\nqueue:\n  queue_name: kv\nmodels: [1]\ntimeout: 30\n",
        "postgres:\n  url: postgresql://h/d\ntools:\n  browser:\n    url: x\n",
        "pool: {size: 3}\nflags: [a]\nprovider: openai\nnamespaces: [a]\nreader: {flags: [a]}\npolicies:\n",
        "tools:\n  kv_store:\n  queue:\n    size: 3\nkvworker: {enabled: true}\n",
        "tools:\n  kv_store:\n    default_adapter: pool\n    adapters:\n      sqlite:\n      pool: {size: 1}\n",
    ],
)
def test_a_host_programs_own_keys_stay_allowed(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_a_personas_file_refuses_what_slid_out_of_a_persona(tmp_path: Path) -> None:
    """Without its namespaces the persona could use every namespace."""
    personas = tmp_path / "personas.yaml"
    personas.write_text("personas:\n  reader:\n    flags: [a]\nnamespaces:\n  'x.*': [read]\n", encoding="utf-8")
    message = refusal(tmp_path, "policies:\n  personas_file: personas.yaml\n")
    assert message.startswith(f"{personas}: namespaces: it does nothing here; indent it into personas.NAME,")
    personas.write_text("personas:\n  reader:\n    flags: [a]\nwriter:\n  flags: [b]\n", encoding="utf-8")
    assert "writer: it does nothing here; indent it into personas," in refusal(
        tmp_path, "policies:\n  personas_file: personas.yaml\n"
    )


@pytest.mark.parametrize(
    ("character", "name"),
    [("\u00a0", "no-break space"), ("\u2003", "em space"), ("\u3000", "ideographic space"), ("\u200b", "zero width")],
)
def test_indentation_that_yaml_does_not_see_is_refused(tmp_path: Path, character: str, name: str) -> None:
    message = refusal(tmp_path, f"queue:\n{character * 2}broker_url: redis://broker/0\n")
    assert "line 2, column 1: the key has a " + name in message
    assert f"U+{ord(character):04X}" in message


def test_quoted_keys_and_values_may_hold_any_space(tmp_path: Path) -> None:
    load(tmp_path, 'models:\n  "\u00a0a": 1\n  b: \u00a0c\n')


@pytest.mark.parametrize("number", ["1:30", "1:30.5", "-1:30", "060", "0_60", "+017"])
def test_numbers_that_yaml_reads_in_base_60_or_8_are_refused(tmp_path: Path, number: str) -> None:
    for key in ("facade:\n  timeout_seconds", "queue:\n  visibility_timeout_seconds"):
        message = refusal(tmp_path, f"{key}: {number}\n")
        assert f"not {number!r}; write plain digits, without a leading zero or a colon" in message


def test_such_numbers_are_kept_as_text_where_text_is_wanted(tmp_path: Path) -> None:
    text = "queue:\n  queue_name: 017\nmode: 0600\nat: 12:30\npolicies:\n  personas:\n    007: {flags: [a]}\n"
    settings = load(tmp_path, text)
    assert settings.queue.queue_name == "017"
    assert list(settings.policies.personas) == ["007"]


@pytest.mark.parametrize(
    ("number", "value"), [("0.5", 0.5), ("7", 7.0), ("1_0", 10.0), ("0x10", 16.0), ("1.0e+1", 10.0)]
)
def test_other_numbers_are_still_numbers(tmp_path: Path, number: str, value: float) -> None:
    assert load(tmp_path, f"facade:\n  timeout_seconds: {number}\n").facade.timeout_seconds == value
