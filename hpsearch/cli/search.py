"""`hpsearch search`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hpsearch.cli.options import INTERRUPTED, RUNS, DataOptions, Device, Runs, SplitOptions, takes
from hpsearch.cli.progress import progress_line
from hpsearch.names import printable

if TYPE_CHECKING:
    from hpsearch.engine.records import SearchRecord
    from hpsearch.engine.search import SearchPlan
    from hpsearch.engine.spec import StudySpec
    from hpsearch.families import Override


@takes(reading=DataOptions, split=SplitOptions)
def search_cli(
    reading: DataOptions,
    split: SplitOptions,
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY.py",
            help="A Python file that sets study = StudySpec(...); see studies/. "
            "The options below change what it says.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="The data: a name such as digits, a folder or a file; see 'hpsearch data list'.",
        ),
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option(help="A model family; give the option again for more.", metavar="FAMILY"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials in all, those done already included.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each trial.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the search; by default that of the data.")
    ] = None,
    runs: Runs = RUNS,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler and the training.")] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    keep: Annotated[
        int | None, typer.Option(help="How many trials of each family keep their checkpoint.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Fix a parameter (lr=1e-3), narrow it (lr=1e-4..1e-2) or leave some of its "
            "choices (optimizer=sgd,adamw); give the option again for more.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, estimate the time, and stop.")
    ] = False,
) -> None:
    """Run a search, or go on with one.

    The same command again goes on with a search that was interrupted. What no option gives comes
    from the study file, or from the default study: 30 trials of three families on digits.
    """
    import optuna

    from hpsearch.engine.search import plan, search

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec = _spec(
        study,
        data,
        reading,
        split,
        families=tuple(family) if family else None,
        trials=trials,
        epochs=epochs,
        name=name,
        seed=seed,
        precision=precision,
        keep=keep,
        overrides=set_ or [],
    )
    console = Console()
    if dry_run:
        with progress_line(console) as show:
            planned = plan(spec, runs=runs, device=device, watch=show)
        _print_plan(console, planned)
        return
    from hpsearch.cli.live import make_view

    try:
        with make_view(console) as view:
            record = search(spec, runs=runs, device=device, watch=view.watch)
    except KeyboardInterrupt:
        command = shlex.join(["hpsearch", *sys.argv[1:]])
        _say(console, f"stopped; finished trials are stored. To go on: {command}")
        raise typer.Exit(INTERRUPTED) from None
    _print_end(console, record)
    if record.finished and not record.ranked():
        raise typer.Exit(1)


def _spec(
    study: Path | None,
    data: str | None,
    reading: DataOptions,
    split: SplitOptions,
    **options: Any,
) -> StudySpec:
    """The study file's specification, or the default one, with the given options on top."""
    from hpsearch.engine.spec import StudySpec, load_study

    spec = load_study(study) if study is not None else StudySpec()
    overrides = _overrides(options.pop("overrides"))
    changes = {name: value for name, value in options.items() if value is not None}
    if data is not None and "name" not in changes:
        changes["name"] = ""  # the name follows the data
    changes["data"] = reading.spec(spec.data_spec if data is None else data)
    changes["split"] = split.spec(spec.split)
    if overrides:
        changes["overrides"] = {**spec.overrides, **overrides}
    return dataclasses.replace(spec, **changes)


def _overrides(texts: list[str]) -> dict[str, Override]:
    from hpsearch.errors import SpaceError
    from hpsearch.families import parse_override

    overrides: dict[str, Override] = {}
    for name, override in map(parse_override, texts):
        if name in overrides:
            raise SpaceError(f"--set {name} is given twice; give it once, as LOW..HIGH or A,B")
        overrides[name] = override
    return overrides


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_plan(console: Console, planned: SearchPlan) -> None:
    from hpsearch.cli.live import estimate_lines

    spec = planned.spec
    _say(
        console,
        f"search {spec.name}: {', '.join(spec.families)}; {spec.trials} trials of {spec.epochs} "
        f"epochs on {planned.device} {planned.precision}",
    )
    warnings = [printable(f"warning: {text}") for text in planned.warnings]
    for line in (*warnings, *estimate_lines(planned.estimates)):
        _say(console, line)
    _say(console, "nothing was written (--dry-run)")


def _print_end(console: Console, record: SearchRecord) -> None:
    from hpsearch.cli.report import print_report
    from hpsearch.results.report import report_document

    print_report(console, report_document(record, best=1))
    runs = "" if record.runs == RUNS else f" --runs {shlex.quote(str(record.runs))}"
    _say(
        console,
        f"search {record.name} has {record.finished} finished trials ({record.spec['trials']} "
        f"asked for). To add some: the same command with --trials {2 * record.finished}",
    )
    if not record.ranked():
        _say(console, "no trial is complete, so there is nothing to export")
        return
    _say(console, f"to export the best: hpsearch export {record.name}{runs}")
    _say(console, f"to look at all:     hpsearch dashboard{runs}")
