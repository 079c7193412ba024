"""`hpsearch search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import (
    RUNS,
    DataOptions,
    Runs,
    SplitOptions,
    Storage,
    WorkerOptions,
    takes,
)
from hpsearch.cli.progress import progress_line
from hpsearch.cli.study import (
    Attempts,
    Data,
    Families,
    NoFirst,
    Objective,
    Patience,
    Pruner,
    PrunerSet,
    Sampler,
    SamplerSet,
    Set,
    Study,
    study_spec,
)
from hpsearch.cli.text import output, say
from hpsearch.data.words import plural

if TYPE_CHECKING:
    from hpsearch.engine.search import SearchPlan


@takes(reading=DataOptions, split=SplitOptions, run=WorkerOptions)
def search_cli(
    reading: DataOptions,
    split: SplitOptions,
    run: WorkerOptions,
    study: Study = None,
    data: Data = None,
    family: Families = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Trials in all, those done already included.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="E", help="Epochs of each trial.")] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the search; by default that of the data."),
    ] = None,
    runs: Runs = RUNS,
    storage: Storage = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the sampler and the training.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="PRECISION",
            help="auto, fp32 or bf16; auto: measured where the search takes long.",
        ),
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
    objective: Objective = None,
    sampler: Sampler = None,
    sampler_set: SamplerSet = None,
    pruner: Pruner = None,
    pruner_set: PrunerSet = None,
    patience: Patience = None,
    attempts: Attempts = None,
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many trials of each family keep their checkpoint."),
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
            help="What to do with a trial whose loss becomes infinite or NaN: fail, or "
            "prune, so that the sampler learns to keep away.",
        ),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What the dashboard shows beside numbers: all: each trial's history, "
            "pictures of long ones, and pictures and checkpoint of the best; best: no pictures of "
            "other trials; none.",
        ),
    ] = None,
    set_: Set = None,
    no_first: NoFirst = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, estimate the time, and stop.")
    ] = False,
) -> None:
    """Run a search, or go on with one.

    The same command again goes on with a search that was interrupted. What no option gives comes
    from the study file, or from the default study: 30 trials of three families on digits.
    """
    by = run.arguments()  # before imports that take seconds
    import optuna

    from hpsearch.engine.search import plan, search

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec = study_spec(
        study,
        data,
        reading,
        split,
        families=family,
        no_first=no_first,
        trials=trials,
        epochs=epochs,
        name=name,
        seed=seed,
        precision=precision,
        memory_format=memory_format,
        execution=execution,
        objective=objective,
        sampler=sampler,
        sampler_set=sampler_set,
        pruner=pruner,
        pruner_set=pruner_set,
        patience=patience,
        attempts=attempts,
        keep=keep,
        checkpoint_every=checkpoint_every,
        non_finite=non_finite,
        artifacts=artifacts,
        overrides=set_ or [],
    )
    console = output()
    if dry_run:
        with progress_line(console) as show:
            del by["timeout"]
            planned = plan(spec, runs=runs, storage=storage, watch=show, **by)
        _print_plan(console, planned)
        return
    from hpsearch.cli.ending import print_end
    from hpsearch.cli.live import watched
    from hpsearch.cli.tables import print_search
    from hpsearch.results.reports.document import search_document

    with watched(console) as view:
        record = search(spec, runs=runs, storage=storage, watch=view.watch, **by)
    print_search(console, search_document(record, best=1))
    print_end(console, record, stopped=view.stopping)


def _print_plan(console: Console, planned: SearchPlan) -> None:
    from hpsearch.cli.lines import dataline, found_lines, time_lines
    from hpsearch.names import family_label

    spec = planned.spec
    data = dataline(planned.data, f"{planned.device} {planned.precision}")
    say(console, f"search {spec.name}, on {data}")
    for line in found_lines(planned.data["notes"], planned.errors, planned.warnings):
        say(console, line)
    pruned = spec.pruner != "none" and len(spec.objectives) == 1
    say(
        console,
        f"{plural(spec.trials, 'trial')} of {plural(spec.epochs, 'epoch')}, chosen by "
        f"{spec.sampler}, {f'pruned by {spec.pruner}' if pruned else 'not pruned'}, ranked by "
        f"{spec.objective}",
    )
    for family, space in planned.spaces.items():
        names = ", ".join(row.name for row in space)
        searched = plural(len(space), "parameter")
        say(console, f"{family_label(family)}: {searched} searched: {names}")
    for line in time_lines(planned):
        say(console, line)
    say(console, "nothing was written (--dry-run)")
