"""The command line: options and help here, then one call into the library, then printing.

Nothing heavy is imported before a command runs, so that help is quick.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from hpsearch.cli import (
    ablate,
    check,
    compare,
    dashboard,
    data,
    evaluate,
    export,
    families,
    predict,
    report,
    retrain,
    search,
    status,
    worker,
)
from hpsearch.cli.usage import HELP, PlainTyper, StudyCommand
from hpsearch.errors import HpsearchError
from hpsearch.names import printable

_EPILOG = """
A search, and what comes of it:

\b
  hpsearch data check photos                 photos/cat/..., photos/dog/...
  hpsearch search --data photos --trials 30  the search is called photos
  hpsearch status                            all searches, and how one stands
  hpsearch export photos                     the best model and its test score
  hpsearch predict exports/photos new.jpg    what is on another picture

Searches are deleted in 'hpsearch dashboard --allow-write'. Two variables: HPSEARCH_CACHE is the
folder of decoded images, HPSEARCH_STORAGE stands for --storage.
"""

app = PlainTyper(
    name="hpsearch",
    help="Find the best image classifier for your data, with a test score you can believe.",
    epilog=_EPILOG,
    context_settings=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hpsearch {metadata.version('hpsearch')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options before the command; the help above them is the application's."""


app.command("search", cls=StudyCommand)(search.search_cli)
app.command("worker")(worker.worker_cli)
app.command("status")(status.status_cli)
app.command("dashboard")(dashboard.dashboard_cli)
app.command("export")(export.export_cli)
app.command("retrain")(retrain.retrain_cli)
app.command("predict")(predict.predict_cli)
app.command("evaluate")(evaluate.evaluate_cli)
app.command("report")(report.report_cli)
app.command("compare")(compare.compare_cli)
app.command("ablate")(ablate.ablate_cli)
app.command("check", cls=StudyCommand, short_help="See whether a configuration can learn at all.")(
    check.check_cli
)
app.command("families")(families.families_cli)
app.command("space")(families.space_cli)
app.add_typer(data.app, name="data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: with 2 where the user can mend what was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="replace")  # a dash that it does not know is no reason to end
    try:
        app(args=list(arguments) if arguments is not None else None)
    except HpsearchError as error:
        print("error: " + printable(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
