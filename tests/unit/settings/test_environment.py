"""The environment variables: fallbacks that the file overrides, with the same checks."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings
from kvworker.settings.environment import FALLBACKS
from kvworker.settings.variables import _Variables

URL = "postgresql+psycopg://atlas:hidden@db.example.com/env"
FILE_URL = "postgresql+psycopg://atlas:hidden@db.example.com/file"


def resolved(environ: dict[str, str], block: dict[str, Any] | None = None, **blocks: Any) -> dict[str, Any]:
    data = {"tools": {"kv_store": {"adapters": {"postgres": block or {}}}}, **blocks}
    return Settings.from_mapping(data, environ=environ).store.adapter_config("postgres")[1]


def test_every_variable_is_a_fallback_for_its_key() -> None:
    config = resolved(
        {
            "ATLAS_KV_STORE_URL": URL,
            "ATLAS_KV_REUSE_CONVERSATION": "false",
            "ATLAS_KV_NAMESPACE_QUOTA_BYTES": "2097152",
            "ATLAS_KV_GLOBAL_QUOTA_BYTES": "16777216",
            "ATLAS_KV_POOL_SIZE": "10",
            "ATLAS_KV_MAX_OVERFLOW": "0",
            "ATLAS_KV_POOL_TIMEOUT": "2.5",
        }
    )
    assert config["url"] == URL
    assert config["reuse_conversation_store"] is False
    assert config["namespace_quota_bytes"] == 2_097_152
    assert config["global_quota_bytes"] == 16_777_216
    assert config["pool"] == {"size": 10, "max_overflow": 0, "timeout": 2.5}


def test_defaults_without_variables() -> None:
    config = resolved({"ATLAS_KV_STORE_URL": URL})
    assert config["namespace_quota_bytes"] == 1_048_576
    assert config["global_quota_bytes"] is None


def test_the_file_wins_key_by_key() -> None:
    environ = {"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_POOL_SIZE": "10", "ATLAS_KV_MAX_OVERFLOW": "11"}
    config = resolved(environ, {"url": FILE_URL, "pool": {"size": 7, "max_overflow": None}})
    assert config["url"] == FILE_URL
    assert config["pool"] == {"size": 7, "max_overflow": 11, "timeout": 30.0}


def test_a_variable_that_the_file_overrides_is_not_read() -> None:
    environ = {"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_POOL_SIZE": "many"}
    assert resolved(environ, {"pool": {"size": 7}})["pool"]["size"] == 7


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_variable_counts_as_omitted(blank: str) -> None:
    assert resolved({"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_POOL_SIZE": blank})["pool"]["size"] == 5


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "FALSE", " No "])
def test_every_spelling_of_false(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"postgres\.url: no database"):
        resolved({"ATLAS_KV_REUSE_CONVERSATION": text}, conversation_store={"url": FILE_URL})


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "True"])
def test_every_spelling_of_true(text: str) -> None:
    config = resolved({"ATLAS_KV_REUSE_CONVERSATION": text}, conversation_store={"url": FILE_URL})
    assert (config["url"], config["reuse_conversation_store"]) == (FILE_URL, True)


def test_a_file_that_reuses_the_conversation_store_wins_over_the_url_variable() -> None:
    environ = {"ATLAS_KV_STORE_URL": URL}
    config = resolved(environ, {"reuse_conversation_store": True}, conversation_store={"url": FILE_URL})
    assert (config["url"], config["reuse_conversation_store"]) == (FILE_URL, True)


def test_a_file_that_names_a_database_wins_over_the_reuse_variable() -> None:
    config = resolved({"ATLAS_KV_REUSE_CONVERSATION": "true"}, {"url": FILE_URL})
    assert (config["url"], config["reuse_conversation_store"]) == (FILE_URL, False)


def test_the_url_variable_completes_a_file_that_does_not_reuse() -> None:
    assert resolved({"ATLAS_KV_STORE_URL": URL}, {"reuse_conversation_store": False})["url"] == URL


def test_the_url_variable_wins_over_reuse_by_default() -> None:
    config = resolved({"ATLAS_KV_STORE_URL": URL}, conversation_store={"url": FILE_URL})
    assert (config["url"], config["reuse_conversation_store"]) == (URL, False)


def test_the_variables_do_not_touch_sqlite() -> None:
    settings = Settings.from_mapping(
        {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite:///x"}}}}},
        environ={"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_POOL_SIZE": "9"},
    )
    config = settings.store.adapter_config()[1]
    assert (config["url"], config["pool"]["size"]) == ("sqlite:///x", 5)


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("ATLAS_KV_POOL_SIZE", "0", "greater than or equal to 1, not 0"),
        ("ATLAS_KV_POOL_SIZE", "ten", "a whole number, such as 1000 or 1_000, not 'ten'"),
        ("ATLAS_KV_POOL_SIZE", "1__0", "not '1__0'"),
        ("ATLAS_KV_POOL_TIMEOUT", "1e", "a number, such as 30, 0.5 or 1e1, not '1e'"),
        ("ATLAS_KV_POOL_SIZE", "10.0", "not '10.0'"),
        ("ATLAS_KV_POOL_SIZE", "9" * 5000, "a whole number"),
        ("ATLAS_KV_MAX_OVERFLOW", "-1", "greater than or equal to 0, not -1"),
        ("ATLAS_KV_POOL_TIMEOUT", "inf", "a finite number"),
        ("ATLAS_KV_POOL_TIMEOUT", "nan", "a finite number"),
        ("ATLAS_KV_POOL_TIMEOUT", "-3", "greater than 0, not -3.0"),
        ("ATLAS_KV_NAMESPACE_QUOTA_BYTES", "2MiB", "not '2MiB'"),
        ("ATLAS_KV_GLOBAL_QUOTA_BYTES", "0", "greater than 0, not 0; for no global quota, leave it out or blank"),
        ("ATLAS_KV_REUSE_CONVERSATION", "maybe", "true or false, not 'maybe'"),
        ("ATLAS_KV_STORE_URL", "mysql://u:hidden@h/d", "a URL like postgresql+psycopg://"),
    ],
)
def test_a_bad_variable_is_named_with_its_value_and_the_fix(name: str, text: str, fix: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolved({name: text})
    message = str(caught.value)
    assert message.startswith(f"{name}: it should be ")
    assert fix in message
    assert "hidden" not in message
    assert "\n" not in message


def test_both_variables_at_once_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolved({"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_REUSE_CONVERSATION": "true"})
    assert str(caught.value).startswith("ATLAS_KV_REUSE_CONVERSATION: true contradicts ATLAS_KV_STORE_URL")
    assert "hidden" not in str(caught.value)


def test_every_fallback_is_parsed() -> None:
    fields = _Variables.model_fields.values()
    assert {field.alias for field in fields} == set(FALLBACKS)


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLAS_KV_POOL_SIZE", "9")
    monkeypatch.setenv("ATLAS_KV_MAX_OVERFLOW", "many")
    config = resolved({"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_POOL_TIMEOUT": "3"})
    assert config["pool"] == {"size": 5, "max_overflow": 10, "timeout": 3.0}


def test_numbers_as_python_reads_them() -> None:
    config = resolved(
        {
            "ATLAS_KV_STORE_URL": URL,
            "ATLAS_KV_NAMESPACE_QUOTA_BYTES": "2_097_152",
            "ATLAS_KV_POOL_SIZE": "+1_0",
            "ATLAS_KV_POOL_TIMEOUT": "1e1",
        }
    )
    assert config["namespace_quota_bytes"] == 2_097_152
    assert (config["pool"]["size"], config["pool"]["timeout"]) == (10, 10.0)


def test_a_global_quota_of_0_in_the_file_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"global_quota_bytes: it should be .* leave it out or blank"):
        resolved({}, {"url": URL, "global_quota_bytes": 0})


OTHER_URL = "postgresql+psycopg://atlas:hidden@db.example.com/other"


def test_the_names_that_only_atlas_reads_are_fallbacks_below_the_documented_ones() -> None:
    assert resolved({"ATLAS_KV_URL": OTHER_URL})["url"] == OTHER_URL
    assert resolved({"ATLAS_KV_URL": OTHER_URL, "ATLAS_KV_STORE_URL": URL})["url"] == URL
    config = resolved({"ATLAS_KV_REUSE_CONVERSATION_STORE": "true", "CONVERSATION_DATABASE_URL": OTHER_URL})
    assert (config["url"], config["reuse_conversation_store"]) == (OTHER_URL, True)
    environ = {"ATLAS_KV_REUSE_CONVERSATION_STORE": "true", "ATLAS_KV_REUSE_CONVERSATION": "false"}
    assert resolved({**environ, "ATLAS_KV_URL": OTHER_URL})["reuse_conversation_store"] is False


def test_the_conversation_database_of_atlass_file_is_a_fallback() -> None:
    assert resolved({}, conversation_database={"url": OTHER_URL})["url"] == OTHER_URL
    config = resolved({}, conversation_database={"url": OTHER_URL}, conversation_store={"url": FILE_URL})
    assert config["url"] == FILE_URL
    assert resolved({"CONVERSATION_DATABASE_URL": URL}, conversation_database={"url": OTHER_URL})["url"] == URL


def test_the_other_names_contradict_each_other_as_well() -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolved({"ATLAS_KV_URL": URL, "ATLAS_KV_REUSE_CONVERSATION_STORE": "true"})
    assert str(caught.value).startswith("ATLAS_KV_REUSE_CONVERSATION_STORE: true contradicts ATLAS_KV_URL")


def choices(environ: dict[str, str], **blocks: Any) -> tuple[str, ...]:
    return Settings.from_mapping(blocks, environ=environ).choices


def adapters(default: str = "postgres", **blocks: Any) -> dict[str, Any]:
    return {"kv_store": {"default_adapter": default, "adapters": blocks}}


@pytest.mark.parametrize(
    ("environ", "blocks", "choice"),
    [
        (
            {"ATLAS_KV_REUSE_CONVERSATION": "true"},
            {"tools": adapters(postgres={"url": FILE_URL})},
            "ATLAS_KV_REUSE_CONVERSATION is ignored, since tools.kv_store.adapters.postgres.url names a database",
        ),
        (
            {"ATLAS_KV_STORE_URL": URL},
            {
                "tools": adapters(postgres={"reuse_conversation_store": True}),
                "conversation_store": {"url": FILE_URL},
            },
            "ATLAS_KV_STORE_URL is ignored",
        ),
        (
            {},
            {"tools": adapters(postgres={"url": FILE_URL}), "conversation_database": {"url": OTHER_URL}},
            "uses the database of tools.kv_store.adapters.postgres.url and not the conversation store's",
        ),
        (
            {"ATLAS_KV_NAMESPACE_QUOTA_BYTES": "2097152"},
            {"tools": adapters("sqlite", sqlite={"url": "sqlite:///x"})},
            "postgres.namespace_quota_bytes does not apply to the sqlite adapter, whose own is 1048576",
        ),
        ({"ATLAS_KV_URL": URL}, {}, "ATLAS_KV_URL stands in for tools.kv_store.adapters.postgres.url"),
        (
            {},
            {"conversation_database": {"url": OTHER_URL}},
            "conversation_database.url stands in for conversation_store.url",
        ),
    ],
)
def test_a_choice_that_atlas_would_make_otherwise_is_told(
    environ: dict[str, str], blocks: dict[str, Any], choice: str
) -> None:
    (told,) = [line for line in choices(environ, **blocks) if choice in line]
    assert "hidden" not in told


def test_a_configuration_that_leaves_nothing_open_tells_nothing() -> None:
    assert choices({"ATLAS_KV_STORE_URL": URL, "ATLAS_KV_REUSE_CONVERSATION": "false"}) == ()
    assert choices({}, tools=adapters(postgres={"url": FILE_URL, "namespace_quota_bytes": 5})) == ()
