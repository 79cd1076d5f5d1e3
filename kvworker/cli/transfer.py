"""``import`` and ``export``: JSON lines in and out, with a progress bar on standard error."""

from __future__ import annotations

import io
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from kvworker.cli.options import config_option, json_option, load_settings, persona_option, timeout_option
from kvworker.cli.output import error_console, print_error, print_json
from kvworker.cli.signals import interruptible
from kvworker.client.sync import KeyValueStore
from kvworker.ops.atlas import AtlasStore, check_room
from kvworker.ops.database import open_sql_adapter
from kvworker.ops.entry_lines import (
    check_is_text,
    content_id,
    format_line,
    format_quota,
    quotas_around_entries,
    read_lines,
)
from kvworker.ops.files import replaced_file, rereadable_file
from kvworker.ops.import_report import ImportReport
from kvworker.ops.transfer import Importer
from kvworker.wording import counted

_SHOWN_ERRORS = 20


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path), required=False)
@click.option("--from-atlas", metavar="URL", help="Copy the entries of ATLAS's key-value store from this database.")
@click.option("--stop-on-error", is_flag=True, help="Stop at the first line that fails.")
@click.option("--again", is_flag=True, help="Apply every line, even if you imported this file before.")
@persona_option
@timeout_option
@json_option
@config_option
def import_command(
    config: Path | None,
    file: Path | None,
    from_atlas: str | None,
    timeout: float | None,
    persona: str | None,
    *,
    as_json: bool,
    **options: bool,
) -> None:
    """Store every entry of a JSON lines FILE, or of ATLAS's key-value store.

    Each line is an object: namespace, key, value and, if the entry expires, ttl_seconds. A line with namespace and
    quota_bytes gives a namespace its own quota.

    Importing the same file again applies no line twice, so you can simply repeat an interrupted import. (This
    holds as long as operation ids are kept; see maintenance.operation_retention_seconds.)
    `-` reads standard input. The exit code is 1 if a line failed.

    --from-atlas first checks the quotas. It leaves entries as they are that exist already, so you can repeat it.
    """
    if (file is None) == (from_atlas is None):
        raise click.UsageError("give either FILE or --from-atlas URL")
    with KeyValueStore(load_settings(config), persona) as store:
        if from_atlas is not None:
            report = _import_from_atlas(store, from_atlas, timeout, as_json=as_json)
        else:
            report = _import_file(store, file, timeout, as_json=as_json, **options)
    sys.exit(1 if report.errors else 0)


def _import_file(
    store: KeyValueStore, file: Path | None, timeout: float | None, *, as_json: bool, again: bool, stop_on_error: bool
) -> ImportReport:
    path = None if str(file) == "-" else file
    with rereadable_file(path) as (source, size_bytes):
        check_is_text(source)
        import_id = uuid.uuid4().hex if again else content_id(source)
        importer = Importer(store, import_id, timeout=timeout, stop_on_error=stop_on_error)
        max_bytes = store.settings.queue.max_message_bytes
        return _run(importer, lambda: read_lines(source, max_bytes), size_bytes, as_json=as_json)


def _import_from_atlas(store: KeyValueStore, url: str, timeout: float | None, *, as_json: bool) -> ImportReport:
    with closing(AtlasStore(url)) as atlas:
        contents = atlas.contents()
        check_room(store, contents)
        importer = Importer(store, uuid.uuid4().hex, timeout=timeout, only_absent=True)
        size_bytes = sum(content.size_bytes for content in contents)
        return _run(importer, atlas.lines, size_bytes, as_json=as_json)


def _run(importer: Importer, lines: Callable[[], Iterable[bytes]], size_bytes: int, *, as_json: bool) -> ImportReport:
    progress = _progress(DownloadColumn())
    try:
        with interruptible(), progress:
            bar = progress.add_task("importing", total=size_bytes)
            importer.run(lines, lambda read_bytes: progress.advance(bar, read_bytes))
    finally:
        # An interrupted import says as well what it did.
        _print_report(importer.report, as_json=as_json)
    return importer.report


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default=Path("-"))
@click.option("--namespace", help="Export this namespace only.")
@config_option
def export_command(config: Path | None, file: Path, namespace: str | None) -> None:
    """Write every live entry as JSON lines, and every namespace's own quota.

    They go to FILE, which only you can read, or to standard output, and `import` reads them.

    It reads the database directly, page by page. It may or may not include an entry that is written meanwhile.

    If the store knows no such namespace, it says so, FILE stays as it is, and the exit code is 1.
    """
    with open_sql_adapter(load_settings(config)) as adapter:
        if namespace is not None and not adapter.knows(namespace):
            raise click.ClickException(f"the store has no namespace {namespace!r}, so nothing was exported")
        usages = [usage for usage in adapter.usage(namespace) if usage.namespace is not None]
        before, after = quotas_around_entries(adapter.own_quotas(namespace), usages)
        total = sum(usage.entry_count for usage in usages)
        with interruptible(), _target(file) as target, _progress(MofNCompleteColumn()) as progress:
            bar = progress.add_task("exporting", total=total)
            count = 0
            target.writelines(format_quota(*quota) for quota in before.items())
            for entry in adapter.export_entries(namespace):
                target.write(format_line(entry))
                progress.advance(bar)
                count += 1
            target.writelines(format_quota(*quota) for quota in after.items())
    if str(file) != "-":
        click.echo(f"exported {counted(count, 'entry', 'entries')}", err=True)


def _progress(amount: ProgressColumn) -> Progress:
    console = error_console()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def _target(file: Path) -> Iterator[IO[str]]:
    if str(file) != "-":
        with replaced_file(file) as target:
            yield target
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # JSON is UTF-8, whatever the terminal's encoding.
        sys.stdout.reconfigure(encoding="utf-8")
    yield sys.stdout
    sys.stdout.flush()


def _print_report(report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    for failed in report.errors[:_SHOWN_ERRORS]:
        print_error(f"line {failed.line}: {failed.error}")
    if len(report.errors) > _SHOWN_ERRORS:
        click.echo(f"... and {len(report.errors) - _SHOWN_ERRORS} more", err=True)
    click.echo(f"applied {report.applied}, replayed {report.replayed}, failed {len(report.errors)}")
    if report.present:
        click.echo(
            f"{counted(report.present, 'entry', 'entries')} existed already, and nothing changed there", err=True
        )
    if report.unanswered:
        lines = counted(report.unanswered, "line was", "lines were")
        click.echo(f"{lines} not answered yet; import the same file again to be sure", err=True)
    if report.repeated:
        shown = ", ".join(map(str, report.repeated[:_SHOWN_ERRORS])) + (
            ", ..." * (len(report.repeated) > _SHOWN_ERRORS)
        )
        click.echo(f"these lines write a key of an earlier line again, and the last one counts: {shown}", err=True)
    if report.replayed and not report.applied and not report.errors:
        click.echo("this file was imported before, so no line was applied; use --again to apply it again", err=True)
