"""`hpsearch retrain`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpsearch.cli.interrupt import stoppable
from hpsearch.cli.options import (
    RUNS,
    Device,
    Name,
    ReplaceExport,
    Runs,
    Storage,
    TrialName,
)
from hpsearch.cli.text import (
    accuracy,
    duration,
    make_table,
    objective_difference,
    objective_name,
    objective_value,
    output,
    redraws,
    say,
    tested_text,
    times_text,
)
from hpsearch.names import printable

if TYPE_CHECKING:
    from hpsearch.engine.records import SearchRecord
    from hpsearch.results.retraining.candidates import FoldComparison
    from hpsearch.results.retraining.rerun import RunEpoch, RunOver
    from hpsearch.results.retraining.retrain import Retrained
    from hpsearch.results.retraining.seeds import Spread
    from hpsearch.training.epoch import EpochResult
    from hpsearch.training.objectives import Objective

FOLDS = 3


def retrain_cli(
    name: Name = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="By default exports/NAME-retrained, or exports/NAME-TRIAL-retrained with --trial.",
        ),
    ] = None,
    trial: TrialName = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="How many trainings; the first has the trial's seed.")
    ] = 5,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="PARTS",
            help="train (default), as in the search; or train+val: on the validation images, too, "
            "for as many epochs as the search found best (default with --top).",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="E",
            help="Exactly so many epochs, without early stopping; the schedules span them. Kept "
            "are the weights of the best one, with train+val of the last.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Train the K best configurations on --folds first, and go on with the one that "
            "stays best.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="F",
            help="Divisions of the training and validation images for --top; by default 3.",
        ),
    ] = None,
    force: ReplaceExport = False,
    runs: Runs = RUNS,
    storage: Storage = None,
    device: Device = "auto",
) -> None:
    """Train a stored configuration again, with several seeds.

    All of the models are tested at one look at the test split, which is recorded and counted. What
    is written is an export, of the model that is best on the validation images, or with train+val
    of the first seed that could be trained.
    """
    from hpsearch.engine.search_reader import load_search
    from hpsearch.errors import SearchError
    from hpsearch.results.retraining.retrain import retrain, retrain_best

    if top is None and folds is not None:
        raise SearchError("--folds is for --top: how many configurations to train on folds")
    if top is not None and (trial is not None or epochs is not None):
        other = "--trial" if trial is not None else "--epochs"
        raise SearchError(f"--top finds the trial and its epochs itself; leave out {other}")
    record = load_search(runs, name, storage=storage)
    chosen = record.best if trial is None else record.trial(trial)
    folder = record.name if trial is None else f"{record.name}-{trial}"
    out = out or Path("exports") / f"{folder}-retrained"
    console = output()
    stopping = stoppable(console, "stopped; nothing was written")
    with stopping, _progress(console, record.objective) as watch:
        if top is None:
            done = retrain(
                chosen,
                out,
                seeds=seeds,
                on=on or "train",  # type: ignore[arg-type]
                epochs=epochs,
                replace=force,
                device=device,
                watch=watch,
            )
        else:
            done = retrain_best(
                record,
                out,
                top=top,
                folds=FOLDS if folds is None else folds,
                seeds=seeds,
                on=on or "train+val",  # type: ignore[arg-type]
                replace=force,
                device=device,
                watch=watch,
            )
    _show(console, record, done)


@contextlib.contextmanager
def _progress(
    console: Console, objective: Objective
) -> Iterator[Callable[[RunEpoch | RunOver], None]]:
    """A function that shows each training that is over, and on a terminal each epoch of the one
    that runs.
    """
    with contextlib.ExitStack() as stack:
        live = None
        if redraws(console):
            live = stack.enter_context(Live(console=console, refresh_per_second=8, transient=True))

        def watch(event: RunEpoch | RunOver) -> None:
            from hpsearch.results.retraining.rerun import RunOver

            if isinstance(event, RunOver):
                say(console, over_text(event, objective))
            elif live is not None:
                live.update(Text(printable(epoch_text(event, objective)), style="dim"))

        yield watch


def epoch_text(event: RunEpoch, objective: Objective) -> str:
    """Such as: seed 2 of 5: epoch 7 of 20, validation 97.22 %."""
    result = event.result
    return f"{event.what}: epoch {result.epoch + 1} of {event.epochs}{_value(objective, result)}"


def over_text(event: RunOver, objective: Objective) -> str:
    """Such as: seed 2 of 5: kept epoch 13 of 20, validation 97.50 %."""
    if event.kept is None:
        return f"{event.what} failed: {event.failure}"
    value = _value(objective, event.kept)
    return f"{event.what}: kept epoch {event.kept.epoch + 1} of {event.epochs}{value}"


def _value(objective: Objective, result: EpochResult) -> str:
    value = objective.value(result)
    if math.isnan(value):
        return f", training loss {result.train_loss:.4f}"
    return f", {objective_name(objective)} {objective_value(objective, value)}"


def _show(console: Console, record: SearchRecord, done: Retrained) -> None:
    objective = record.objective
    if done.comparison is not None:
        console.print(_candidates_table(done.comparison))
    console.print(_seeds_table(done, objective))
    test, new = done.metrics["test"], done.metrics["test_of_new"]
    lines = [f"trial {done.trial.name} of search {record.name}, trained again on {done.on}"]
    if new is not None and done.accuracy_of_new is not None:
        lines += _tested("new test images", done.kept.seed, new, done.accuracy_of_new)
    lines += [
        *_tested("test" if new is None else "all test images", done.kept.seed, test, done.accuracy),
        f"test split        opened {times_text(done.times_opened)}, counting all searches over it",
        f"written to        {done.folder}",
    ]
    for line in [*lines, *(f"note: {note}" for note in done.notes[1:])]:
        say(console, line)


def _tested(what: str, seed: int, scores: Mapping[str, Any], spread: Spread) -> Iterator[str]:
    """What the seeds reached on test images, and the model that was kept."""
    several = ""
    if spread.std is not None:
        several = (
            f" ± {100 * spread.std:.2f} (mean and standard deviation over {spread.count} seeds)"
        )
    yield f"{what:17} {accuracy(spread.mean)}{several}"
    if spread.interval is not None:
        yield (
            f"95 % interval     {accuracy(spread.interval[0])} to {accuracy(spread.interval[1])} "
            "(of the mean, for other seeds)"
        )
    yield f"kept              seed {seed}: {tested_text(scores)}"


def _seeds_table(done: Retrained, objective: Objective) -> Table:
    table = make_table(left=["seed"], right=["kept epoch", objective.short, "test acc.", "time"])
    for seed in done.seeds:
        mark = " (kept)" if seed is done.kept else ""
        if seed.kept is None:
            table.add_row(f"{seed.seed}", "failed", "–", "–", "–")
            continue
        value = objective.value(seed.kept)
        table.add_row(
            f"{seed.seed}{mark}",
            f"{seed.kept.epoch + 1} of {len(seed.history)}",
            "–" if math.isnan(value) else objective_value(objective, value),
            accuracy(seed.test_scores["accuracy"]),
            duration(seed.seconds),
        )
    return table


def _candidates_table(comparison: FoldComparison) -> Table:
    objective = comparison.objective
    table = make_table(
        left=["trial"],
        right=["in the search", "", "on the folds", "±", "difference", ""],
    )
    for place, candidate in enumerate(comparison.candidates, 1):
        row = [
            printable(candidate.trial.name),
            objective_value(objective, candidate.searched),
            f"#{candidate.place}",
        ]
        if candidate.difference is None or candidate.standard_error is None:
            table.add_row(*row, "failed", "–", "–", f"#{place}")
            continue
        table.add_row(
            *row,
            objective_value(objective, candidate.mean),
            objective_difference(objective, candidate.standard_error, sign=""),
            objective_difference(objective, candidate.difference),
            f"#{place}",
        )
    return table
