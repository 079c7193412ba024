"""`hpsearch search`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import INTERRUPTED, RUNS, DataOptions, Device, Runs, SplitOptions, takes
from hpsearch.cli.progress import progress_line
from hpsearch.cli.study import Data, Families, Set, Study, study_spec
from hpsearch.cli.text import say

if TYPE_CHECKING:
    from hpsearch.engine.records import SearchRecord
    from hpsearch.engine.search import SearchPlan


@takes(reading=DataOptions, split=SplitOptions)
def search_cli(
    reading: DataOptions,
    split: SplitOptions,
    study: Study = None,
    data: Data = None,
    family: Families = None,
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
    precision: Annotated[
        str | None,
        typer.Option(help="auto, fp32 or bf16; auto: measured where the search takes long."),
    ] = None,
    memory_format: Annotated[
        str | None,
        typer.Option(metavar="ORDER", help="Of images: auto, channels_last or contiguous."),
    ] = None,
    execution: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="Of steps: auto, eager, graph (one CUDA graph) or compile."
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the best is chosen by: val_accuracy (default), val_balanced_accuracy, "
            "val_macro_f1 or val_loss.",
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(help="How many trials of each family keep their checkpoint.")
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Epochs between saved states of a running trial; 0: as often as costs at most 2 % "
            "of its time.",
        ),
    ] = None,
    non_finite: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What to do with a trial whose loss becomes infinite or NaN: fail (default), or "
            "prune, so that the sampler learns to keep away.",
        ),
    ] = None,
    set_: Set = None,
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
    spec = study_spec(
        study,
        data,
        reading,
        split,
        families=family,
        trials=trials,
        epochs=epochs,
        name=name,
        seed=seed,
        precision=precision,
        memory_format=memory_format,
        execution=execution,
        objective=objective,
        keep=keep,
        checkpoint_every=checkpoint_every,
        non_finite=non_finite,
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
        say(
            console,
            "stopped; finished trials are stored, and the last saved state of the one that ran. "
            f"To go on: {command}",
        )
        raise typer.Exit(INTERRUPTED) from None
    _print_end(console, record)
    if not record.ranked() and (record.finished or record.count("infeasible")):
        raise typer.Exit(1)


def _print_plan(console: Console, planned: SearchPlan) -> None:
    from hpsearch.cli.live import estimate_lines

    spec = planned.spec
    say(
        console,
        f"search {spec.name}: {', '.join(spec.families)}; {spec.trials} trials of {spec.epochs} "
        f"epochs on {planned.device} {planned.precision}",
    )
    warnings = [f"warning: {text}" for text in planned.warnings]
    for line in (*warnings, *estimate_lines(planned.estimates)):
        say(console, line)
    say(console, "nothing was written (--dry-run)")


def _print_end(console: Console, record: SearchRecord) -> None:
    from hpsearch.cli.report import print_report
    from hpsearch.results.report import report_document

    print_report(console, report_document(record, best=1))
    runs = "" if record.runs == RUNS else f" --runs {shlex.quote(str(record.runs))}"
    asked = record.spec["trials"]
    text = f"search {record.name} has {record.finished} finished trials ({asked} asked for)."
    if record.finished < asked:
        say(console, f"{text} So many configurations were infeasible that it gave up: narrow them")
    else:
        say(console, f"{text} To add some: the same command with --trials {2 * record.finished}")
    if not record.ranked():
        say(console, "no trial is complete, so there is nothing to export")
        return
    say(console, f"to export the best: hpsearch export {record.name}{runs}")
    say(console, f"to look at all:     hpsearch dashboard{runs}")
