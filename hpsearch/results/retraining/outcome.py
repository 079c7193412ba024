"""What became of the seeds of a retraining: in words, as tables, as pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hpsearch.data.words import plural
from hpsearch.figures.candidates import CandidateValues, candidates_figure
from hpsearch.figures.png import save_png
from hpsearch.figures.seeds import SeedCurve, seeds_figure
from hpsearch.files import write_text
from hpsearch.results.folder import CANDIDATES, RETRAINING, SEEDS
from hpsearch.results.retraining.candidates import FoldComparison
from hpsearch.results.retraining.repeat import Repeat
from hpsearch.results.retraining.seed_job import SeedJob
from hpsearch.results.retraining.seeds import SeedRun, Spread
from hpsearch.results.tables import write_table
from hpsearch.training.objectives import objective_info
from hpsearch.training.tuning import device_name
from hpsearch.training.units import accuracy


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What the trainings of a job gave on test images.

    Attributes:
        seeds: in the order in which they were trained, with their test scores.
        kept: the one whose model is kept.
        repeat, comparison: see `hpsearch.results.retraining.retrain.Retrained`.
    """

    job: SeedJob
    seeds: tuple[SeedRun, ...]
    kept: SeedRun
    repeat: Repeat | None
    comparison: FoldComparison | None

    @cached_property
    def accuracy(self) -> Spread:
        """On the test images."""
        return Spread.of([seed.test_scores["accuracy"] for seed in self._good])

    @cached_property
    def accuracy_of_new(self) -> Spread | None:
        """On those that the weights had not seen which training started from; None where these are
        all or none.
        """
        if not self.kept.new_scores:
            return None
        return Spread.of([seed.new_scores["accuracy"] for seed in self._good])

    @property
    def _good(self) -> list[SeedRun]:
        return [seed for seed in self.seeds if not seed.failure]

    @property
    def notes(self) -> list[str]:
        """What a user should know, in sentences; the first one is the result."""
        return [
            _spread_note(self.accuracy),
            *(
                f"Seed {seed.seed} could not be trained: {seed.failure}."
                for seed in self.seeds
                if seed.failure
            ),
            *self.job.notes,
            *(() if self.repeat is None else (self.repeat.text,)),
            *(() if self.comparison is None else self.comparison.notes),
        ]

    def summary(self) -> dict[str, Any]:
        """As plain JSON types: what the study keeps of it, too."""
        comparison = self.comparison
        return {
            "on": self.job.on,
            "seed": self.kept.seed,
            **self.accuracy.to_dict(),
            "of_new": None if self.accuracy_of_new is None else self.accuracy_of_new.to_dict(),
            "repeats_the_trial": None if self.repeat is None else self.repeat.exact,
            "candidates": None if comparison is None else len(comparison.candidates),
            "folds": None if comparison is None else comparison.folds,
        }


def _spread_note(spread: Spread) -> str:
    """The mean over the seeds, and as much of the spread as so many of them can tell."""
    if spread.std is None:
        return f"Test accuracy with one seed: {accuracy(spread.mean)}; there is no spread to tell."
    start = (
        f"Test accuracy over {spread.count} seeds: {accuracy(spread.mean)} in the mean, "
        f"standard deviation {100 * spread.std:.2f} points"
    )
    if spread.interval is None:
        few = "two seeds are" if spread.count == 2 else "seeds that all agree are"
        return f"{start}; {few} too little for an interval of the mean."
    low, high = spread.interval
    return (
        f"{start}, 95 % interval of the mean {accuracy(low)} to {accuracy(high)} (Student's t, for "
        "other seeds on the same images)."
    )


def facts(job: SeedJob, seeds: Sequence[SeedRun], kept: SeedRun) -> dict[str, Any]:
    """What `metrics.json` says of it before the test images were looked at, as plain JSON types.

    Args:
        kept: which of the seeds is kept.
    """
    trial, row = job.trial, kept.row(is_kept=True)
    objective = objective_info(trial.objective)
    return {
        "search": trial.search,
        "trial": trial.name,
        "chosen": _chosen(job, seeds, kept),
        "epoch": row["epoch"],
        "objective": {"name": objective.name, "value": row[objective.name]},
        "validation": {
            name.removeprefix("val_"): row[name] for name in row if name.startswith("val_")
        },
        "parameters": trial.parameters,
        "data": job.data.facts(),
    }


def _chosen(job: SeedJob, seeds: Sequence[SeedRun], kept: SeedRun) -> str:
    """Where the model comes from, in a sentence."""
    trial, count = job.trial, len(seeds)
    start = (
        f"The configuration of trial {trial.name} of search {trial.search}, trained again with "
        f"{plural(count, 'seed')}"
    )
    if kept.kept is not None and job.on == "train":
        objective = objective_info(trial.objective)
        best = "" if count == 1 else f", the best of them by {objective.label}"
        return (
            f"{start} on the training images. This is seed {kept.seed}{best} "
            f"({objective.value(kept.kept):.4f}), with the weights of epoch {kept.kept.epoch + 1} "
            f"of {len(kept.history)}."
        )
    which = ""
    if count > 1:
        first = "the first" if kept is seeds[0] else "the first that could be trained"
        which = f" This is seed {kept.seed}, {first}."
    return (
        f"{start} on the training and validation images together, for "
        f"{plural(len(kept.history), 'epoch')}, {job.why}; there was nothing left to validate on."
        f"{which}"
    )


def write_seeds(folder: Path, outcome: Outcome) -> Path:
    """Writes all seeds as a table, a picture and a document; gives the picture."""
    job, trial = outcome.job, outcome.job.trial
    rows = [seed.row(is_kept=seed is outcome.kept) for seed in outcome.seeds]
    write_table(folder / f"{SEEDS}.csv", list(rows[0]), [list(row.values()) for row in rows])
    curves = [
        SeedCurve(
            seed=seed.seed,
            history=seed.history,
            kept=seed.kept,
            test_accuracy=(seed.new_scores or seed.test_scores)["accuracy"],
            test_accuracy_95=tuple((seed.new_scores or seed.test_scores)["accuracy_95"]),
            is_kept=seed is outcome.kept,
        )
        for seed in outcome.seeds
        if seed.kept is not None
    ]
    parts = "training" if job.on == "train" else "training and validation"
    title = f"{trial.search}, {trial.name} trained again on the {parts} images"
    if outcome.accuracy_of_new is not None:
        title += ", tested without those that the weights had seen"
    figure = seeds_figure(
        curves,
        title=title,
        objective=objective_info(trial.objective),
        interval=(outcome.accuracy_of_new or outcome.accuracy).interval,
    )
    picture = folder / f"{SEEDS}.png"
    save_png(figure, picture)
    document = {
        "search": trial.search,
        "trial": trial.name,
        **outcome.summary(),
        "epochs": job.length or job.config.epochs,
        "device": device_name(job.device),
        "notes": outcome.notes,
        "runs": rows,
        "comparison": None if outcome.comparison is None else outcome.comparison.to_dict(),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_text(folder / RETRAINING, f"{text}\n")
    return picture


def write_candidates(folder: Path, comparison: FoldComparison, *, search: str) -> Path:
    """Writes the configurations that were compared as a table and a picture; gives the picture."""
    rows = comparison.rows()
    write_table(folder / f"{CANDIDATES}.csv", list(rows[0]), [list(row.values()) for row in rows])
    values = [
        CandidateValues(name=c.trial.name, searched=c.searched, values=c.values)
        for c in sorted(comparison.candidates, key=lambda c: c.place)
    ]
    title = f"{search}: its best configurations, trained again on {comparison.folds} folds"
    figure = candidates_figure(values, objective=comparison.objective, title=title)
    picture = folder / f"{CANDIDATES}.png"
    save_png(figure, picture)
    return picture
