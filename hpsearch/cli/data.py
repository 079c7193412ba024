"""`hpsearch data`: list, inspect, preview, check, convert."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from hpsearch.cli.options import AsJson, DataOptions, Source, SplitOptions, takes
from hpsearch.cli.progress import progress_line
from hpsearch.cli.text import duration, make_table, output, say, tell
from hpsearch.cli.usage import PlainTyper
from hpsearch.names import printable

if TYPE_CHECKING:
    from hpsearch.data.checks import CheckReport, Severity
    from hpsearch.data.summary import DataSummary

app = PlainTyper(
    help="Look at data, check it, convert it.", no_args_is_help=True, rich_markup_mode=None
)

PREVIEW = Path("preview.png")

Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]


@app.command("list")
def list_cli(as_json: AsJson = False) -> None:
    """List what --data takes, and the options of each source."""
    from hpsearch.data.sources import SOURCES

    if as_json:
        rows = [
            {
                "usage": row.usage,
                "help": row.help,
                "options": {option.name: option.help for option in row.options},
            }
            for row in SOURCES
        ]
        print(json.dumps(rows, indent=2))
        return
    table = make_table(left=("data", "what it is, and its options (--with NAME=VALUE)"))
    usages: dict[tuple[str, str], list[str]] = {}
    for row in SOURCES:
        for option in row.options:
            usages.setdefault((option.name, option.help), []).append(row.usage)
    shared = {key: names for key, names in usages.items() if len(names) > 2}
    for row in SOURCES:
        text = Text(row.help)
        for option in row.options:
            if (option.name, option.help) not in shared:
                text.append(f"\n  {option.name}: {option.help}", style="dim")
        table.add_row(Text(row.usage, style="bold"), text)
    for (name, help_text), names in sorted(shared.items()):  # neighbours in the table of sources
        text = Text(f"  {name}: {help_text}", style="dim")
        table.add_row(Text(f"{names[0]} to {names[-1]}", style="dim"), text)
    output().print(table)


@app.command("inspect")
@takes(data=DataOptions, split=SplitOptions)
def inspect_cli(
    source: Source, data: DataOptions, split: SplitOptions, as_json: AsJson = False
) -> None:
    """Count classes and splits; show sizes, channels, mean and standard deviation."""
    from hpsearch.data.sources import open_catalog
    from hpsearch.data.splits import make_split
    from hpsearch.data.store import load_catalog
    from hpsearch.data.summary import summarise

    spec, parts, console = data.spec(source), split.spec(), output()
    with progress_line(console) as watch:
        catalog = open_catalog(spec)
        dataset = load_catalog(catalog, spec, watch=watch)
    summary = summarise(catalog, dataset, make_split(dataset, parts), parts)
    if as_json:
        print(json.dumps(summary.to_dict(), indent=2))
    else:
        _print_summary(console, summary)


def _print_summary(console: Console, summary: DataSummary) -> None:
    table = make_table(left=("class",), right=("train", "validation", "test", "all"))
    for name, counts in summary.classes.items():
        table.add_row(Text(printable(name)), *(f"{n:,}" for n in (*counts, sum(counts))))
    table.add_section()
    table.add_row("all", *(f"{n:,}" for n in (*summary.counts, sum(summary.counts))))
    console.print(table)
    rows = {
        "images": f"{summary.shape} (height x width x channels), uint8",
        "originals": summary.size_words(),
        "mean": ", ".join(f"{value:.4f}" for value in summary.mean) + " (training images, 0 to 1)",
        "std": ", ".join(f"{value:.4f}" for value in summary.std),
        "fingerprint": summary.fingerprint[:16],
    }
    if summary.groups is not None:
        rows["groups"] = f"{summary.groups:,}"
    for name, text in rows.items():
        say(console, f"{name:12}{text}")
    for note in summary.notes:
        tell(console, f"note: {note}")


@app.command("preview")
@takes(data=DataOptions, split=SplitOptions)
def preview_cli(
    source: Source,
    data: DataOptions,
    split: SplitOptions,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE.png", help="The picture to write.")
    ] = PREVIEW,
    examples: Annotated[
        int, typer.Option("-n", metavar="N", help="Images of each class.", min=1)
    ] = 4,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=STRENGTH",
            help="Show what an augmentation does, such as rotate=20; give the option again to "
            "combine several. 'all' is every augmentation there is, strongly.",
        ),
    ] = None,
    show_test: Annotated[
        bool, typer.Option("--show-test", help="Let images of the test split be among them.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Which images are drawn.", min=0)] = 0,
    force: Force = False,
) -> None:
    """Draw a grid of examples of each class, with their names.

    Images of the test split are left out unless asked for.
    """
    from hpsearch.data.examples import choose_examples, parse_strengths
    from hpsearch.data.splits import make_split
    from hpsearch.data.store import load_dataset
    from hpsearch.figures.examples import examples_figure
    from hpsearch.figures.png import save_png

    strengths = parse_strengths(augment or [])
    _require_new(out, ".png", force=force)
    console = output()
    with progress_line(console) as watch:
        dataset = load_dataset(data.spec(source), watch=watch)
    parts = make_split(dataset, split.spec())
    rows = choose_examples(dataset, parts, per_class=examples, seed=seed, show_test=show_test)
    with _writing(out):
        save_png(examples_figure(dataset, rows, strengths, seed=seed), out)
    say(console, f"{sum(map(len, rows)):,} images of {len(rows)} classes are in {out}")


@app.command("check")
@takes(data=DataOptions, split=SplitOptions)
def check_cli(
    source: Source,
    data: DataOptions,
    split: SplitOptions,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Unlabelled images that the model will meet: how far are the training images "
            "from them?",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page that shows the suspicious pairs."),
    ] = None,
    show_test: Annotated[
        bool, typer.Option("--show-test", help="Let the page show images of the test split.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Look for what would make results wrong; exit with 1 where something does.

    Unreadable files, duplicates and near duplicates, conflicting labels, leaks between the parts of
    the split, small classes, odd sizes, and shift between the parts. No model is scored. The result
    is stored, and a search on the same data and split warns of it.
    """
    from hpsearch.data.checks.source import check_source
    from hpsearch.figures.sheet import check_sheet
    from hpsearch.files import write_text

    if sheet is not None:
        _require_new(sheet, ".html", force=force)
    console = output()
    with progress_line(console) as watch:
        report, dataset = check_source(
            data.spec(source), split.spec(), against=against, watch=watch
        )
    if sheet is not None:
        page = check_sheet(report, dataset, show_test=show_test)
        with _writing(sheet):
            write_text(sheet, page)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print_check(console, report)
        if sheet is not None:
            say(console, f"the suspicious pairs are in {sheet}")
    if not report.ok:
        raise typer.Exit(1)


_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
"""Of a finding, by its severity; the worst first."""


def _print_check(console: Console, report: CheckReport) -> None:
    from hpsearch.data.checks import shift_verdict
    from hpsearch.data.words import plural

    _print_findings(console, report)
    for shift in report.shifts:
        tell(
            console,
            f"{shift.first} against {shift.second}: a simple classifier tells them apart with AUC "
            f"{shift.auc:.2f} ± {shift.error:.2f}, 0.5 or less is chance: {shift_verdict(shift)}",
        )
    counts = Counter(finding.severity for finding in report.findings)
    images, classes = report.counts["images"], report.counts["classes"]
    tell(
        console,
        f"{plural(images, 'image')} of {plural(classes, 'class', 'classes')}: "
        + ", ".join(plural(counts[severity], severity) for severity in _STYLES),
    )


def _print_findings(console: Console, report: CheckReport) -> None:
    if not console.is_terminal:  # a line each: as a table, all would be as wide as the longest
        for finding in report.findings:
            say(console, f"{finding.severity}: {finding.message}")
        return
    table = make_table(left=("", "what was found"))
    for finding in report.findings:
        style = _STYLES[finding.severity]
        table.add_row(Text(finding.severity, style), Text(printable(finding.message)))
    if report.findings:
        console.print(table)


@app.command("convert")
@takes(data=DataOptions)
def convert_cli(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="The file to write.")],
    data: DataOptions,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads that decode; by default one for each core.", min=1),
    ] = None,
    force: Force = False,
) -> None:
    """Decode images once, into one HDF5 file that --data takes.

    The file appears whole or not at all. data/README.md has its schema.
    """
    from hpsearch.cli.interrupt import stoppable
    from hpsearch.data.convert import convert
    from hpsearch.data.decode import UnreadableImagesError

    console = output()
    try:
        with (
            stoppable(console, f"stopped; nothing was written to {out}"),
            progress_line(console) as watch,
        ):
            result = convert(data.spec(source), out, replace=force, workers=workers, watch=watch)
    except UnreadableImagesError as error:
        for image in error.images:
            print(image, file=sys.stderr)
        raise
    for image in result.skipped:
        tell(console, f"left out: {image}")
    for note in result.notes:
        tell(console, f"note: {note}")
    say(
        console,
        f"{result.images:,} images of {result.shape} and {len(result.classes)} classes in "
        f"{duration(result.seconds)} ({result.images / result.seconds:,.0f} images/s): {out}",
    )


def _require_new(path: Path, suffix: str, *, force: bool) -> None:
    from hpsearch.errors import DataError

    if path.suffix.lower() != suffix:
        raise DataError(f"{path} must end in {suffix}")
    if not path.parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no folder {path.parent}")
    if os.path.lexists(path) and not (force and path.is_file()):
        raise DataError(f"{path} exists already; replace it with --force, or name another file")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full disk or missing rights, in words."""
    from hpsearch.errors import DataError

    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
