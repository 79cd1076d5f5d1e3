"""The settings of the bundled adapters: one model for each block under ``tools.kv_store.adapters``."""

from __future__ import annotations

import warnings
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, InstanceOf, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from kvworker.settings.base import Block
from kvworker.settings.problems import problem, problem_at
from kvworker.settings.url_files import UrlFile

# Three weeks: both databases keep timeouts as milliseconds in 32 bits, and SQLite reads a longer one as none.
TimeoutSeconds = Annotated[float, Field(gt=0, le=2_000_000, allow_inf_nan=False)]
# Ten years: PostgreSQL's timestamps have an end.
MAX_RETENTION_SECONDS = 315_360_000
_RetentionSeconds = Annotated[float, Field(gt=0, le=MAX_RETENTION_SECONDS, allow_inf_nan=False)]
# A plain name needs no quotes in the options of a connection.
_SchemaName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
QuotaBytes = Annotated[int, Field(gt=0, le=2**62)]


def _check_global_quota(quota_bytes: int) -> int:
    if quota_bytes <= 0:
        raise problem(f"it should be greater than 0, not {quota_bytes}; for no global quota, leave it out or blank")
    return quota_bytes


GlobalQuotaBytes = Annotated[
    int, AfterValidator(_check_global_quota), Field(le=2**62, json_schema_extra={"exclusiveMinimum": 0})
]
_Limit = Annotated[int, Field(gt=0, le=2**40)]
PoolSize = Annotated[int, Field(ge=1)]
PoolOverflow = Annotated[int, Field(ge=0)]


class PoolSettings(Block):
    """The connection pool of one worker process."""

    size: PoolSize = Field(default=5, description="Connections that each worker process keeps.")
    max_overflow: PoolOverflow = Field(default=10, description="Connections that it opens on top under load.")
    timeout: TimeoutSeconds = Field(default=30.0, description="Seconds that a call waits for a connection.")


class SqlAdapterSettings(Block):
    """The settings that both SQL adapters have."""

    url: SecretStr | None = Field(default=None, description="URL of the database. Only workers need it.")
    reuse_conversation_store: bool | None = Field(
        default=None,
        description="Use the conversation store's database. Default: true without a url, else false. Write true where"
        " the host program hands over its engine instead of a conversation_store.url.",
    )
    namespace_quota_bytes: QuotaBytes = Field(
        default=1_048_576, description="Quota in bytes of each namespace, unless set_quota gave the namespace its own."
    )
    global_quota_bytes: GlobalQuotaBytes | None = Field(
        default=None, description="Quota in bytes of the whole store. No limit if omitted."
    )
    namespace_entry_limit: _Limit | None = Field(
        default=None,
        description="Entries that a namespace may hold, and n times as many if its own quota is n times the configured"
        " one. Default: one for every 64 bytes of namespace_quota_bytes, at least 1000.",
    )
    namespace_record_limit: _Limit | None = Field(
        default=None,
        description="Operation records that a namespace may keep, and n times as many likewise. Default: four for every"
        " byte of namespace_quota_bytes, at least 1000000.",
    )
    namespace_limit: _Limit = Field(default=100_000, description="Namespaces that the store may have.")
    pool: PoolSettings = Field(default=PoolSettings(), description="The connection pool of one worker process.")
    #: The file sets it as ``maintenance.operation_retention_seconds``.
    operation_retention_seconds: SkipJsonSchema[_RetentionSeconds] = 86_400.0
    #: The file sets it as ``maintenance.generated_id_retention_seconds``. It is cut to the other retention.
    generated_id_retention_seconds: SkipJsonSchema[_RetentionSeconds] = 3_600.0
    migrate_on_start: bool = Field(
        default=False,
        description="Create or update the schema on first use, which suits a single machine, instead of by"
        " `kvworker migrate`.",
    )

    @property
    def entry_limit(self) -> int:
        """Entries that a namespace may hold."""
        return self.namespace_entry_limit or min(2**40, max(1000, self.namespace_quota_bytes // 64))

    @property
    def record_limit(self) -> int:
        """Operation records that a namespace may keep."""
        return self.namespace_record_limit or min(2**40, max(1_000_000, self.namespace_quota_bytes * 4))

    @field_validator("operation_retention_seconds", "generated_id_retention_seconds", mode="before")
    @classmethod
    def _refuse_in_file(cls, value: object, info: ValidationInfo) -> object:
        if info.context is not None:
            raise problem(f"set maintenance.{info.field_name} instead")
        return value


with warnings.catch_warnings():
    # The file's name of a key is also that of a method of BaseModel, which pydantic has given up.
    warnings.filterwarnings("ignore", 'Field name "schema"', UserWarning)

    class PostgresSettings(SqlAdapterSettings):
        """The ``postgres`` adapter's block."""

        nullable_keys: ClassVar[frozenset[str]] = frozenset({"prepare_threshold"})

        schema: _SchemaName | None = Field(  # type: ignore[assignment]
            default=None,
            description="PostgreSQL schema of the tables, which `kvworker migrate` creates. Default: the user's search"
            " path."
            " Beside another program's table kv_entries, as ATLAS has, it must be a schema of its own.",
        )
        #: The environment gives it, such as ``ATLAS_KV_STORE_URL_FILE``.
        url_file: SkipJsonSchema[InstanceOf[UrlFile] | None] = None
        prepare_threshold: int | None = Field(
            default=1,
            ge=0,
            description="Executions after which a statement is prepared; null for PgBouncer in transaction mode.",
        )
        statement_timeout_seconds: TimeoutSeconds = Field(
            default=10.0, description="Seconds after which the database cancels a statement."
        )

        @field_validator("url_file", mode="before")
        @classmethod
        def _refuse_file_in_file(cls, value: object, info: ValidationInfo) -> object:
            if info.context is not None:
                raise problem("name the file with the variable ATLAS_KV_STORE_URL_FILE instead")
            return value

        @model_validator(mode="after")
        def _check_schema(self) -> Self:
            if self.schema is not None and self.prepare_threshold is None:
                raise problem_at(
                    "schema",
                    "prepare_threshold: null is for PgBouncer, which keeps no settings of a session; set it on the role"
                    " instead: ALTER ROLE name SET search_path = schema",
                )
            return self


class SqliteSettings(SqlAdapterSettings):
    """The ``sqlite`` adapter's block."""

    busy_timeout_seconds: TimeoutSeconds = Field(
        default=10.0, description="Seconds that a write waits for another process's write."
    )
