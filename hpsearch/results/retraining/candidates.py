"""How much of a search's best values was luck: its best configurations, trained again with fresh
seeds on other divisions of the same images.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hpsearch.config import TrainConfig
from hpsearch.data.splits import Split, SplitSpec, development_data, k_folds
from hpsearch.data.views import DataViews
from hpsearch.engine.records import TrialRecord
from hpsearch.errors import InfeasibleError, NonFiniteLossError, SearchError
from hpsearch.names import listed
from hpsearch.results.retraining.rerun import RunEpoch, RunOver, Watch, run_training
from hpsearch.results.retraining.stored import stored_config
from hpsearch.results.source import SearchData
from hpsearch.results.tables import Cell
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import Objective
from hpsearch.training.seeds import derive_seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration that was trained on every fold.

    Attributes:
        place: among the search's complete trials, from 1.
        values: the objective's, by fold, each of its best epoch; empty where a training failed.
        losses: the validation losses of the same epochs.
        best_epochs: the same epochs, from 0.
        failure: why a training failed, or empty.
    """

    trial: TrialRecord
    place: int
    values: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    best_epochs: tuple[int, ...] = ()
    failure: str = ""

    def images_of(self, train: int) -> int:
        """How many of `train` training images its configuration takes."""
        most = 0 if self.trial.config is None else self.trial.config.train_images
        return min(most or train, train)

    @property
    def searched(self) -> float:
        """The value by which the search ranked it."""
        return math.nan if self.trial.value is None else self.trial.value

    @property
    def mean(self) -> float | None:
        """Of the folds' values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def standard_error(self) -> float | None:
        """Of the mean, from the spread of the folds, which share training images: a rough one."""
        if not self.values:
            return None
        return statistics.stdev(self.values) / math.sqrt(len(self.values))

    @property
    def difference(self) -> float | None:
        """The folds' mean without the search's value."""
        return None if self.mean is None else self.mean - self.searched

    @property
    def length(self) -> int:
        """How many epochs it wants: the median of the folds' best ones, counted from 1."""
        return math.floor(statistics.median(self.best_epochs) + 1.5)

    def key(self, objective: Objective) -> tuple[float, float]:
        """Candidates are ranked by it, as trials are; the greater the better."""
        if self.mean is None:
            return (-math.inf, -math.inf)
        return objective.key_of(self.mean, statistics.fmean(self.losses))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldComparison:
    """The best configurations of a search beside what they give again.

    Attributes:
        candidates: the best by the folds first.
        asked: how many there were to be; a search may have fewer complete trials.
        train_images: that each fold has to train on, in the mean.
        searched_images: that the search had.
    """

    candidates: tuple[Candidate, ...]
    asked: int
    objective: Objective
    folds: int
    train_images: int
    searched_images: int

    @property
    def winner(self) -> Candidate:
        """What stays best."""
        return self.candidates[0]

    @property
    def favourite(self) -> Candidate:
        """What the search held for the best."""
        return min(self.candidates, key=lambda candidate: candidate.place)

    @property
    def notes(self) -> tuple[str, ...]:
        """What it shows, in sentences."""
        notes = [self._luck()]
        if len(self.candidates) < self.asked:
            notes.append(
                f"{self.asked} configurations were asked for, but the search has only "
                f"{len(self.candidates)} complete trials: these are compared."
            )
        if self.winner is self.favourite:
            notes.append(f"{self.winner.trial.name} stays the best of {len(self.candidates)}.")
        else:
            place = self.candidates.index(self.favourite) + 1
            notes.append(
                f"{self.winner.trial.name}, number {self.winner.place} of the search, comes out "
                f"best; the search's best, {self.favourite.trial.name}, comes out as number "
                f"{place} of {len(self.candidates)}."
            )
        notes += self._other_sizes()
        notes += [
            f"{candidate.trial.name} is last, as a training of it failed: {candidate.failure}"
            for candidate in self.candidates
            if candidate.failure
        ]
        return tuple(notes)

    def _luck(self) -> str:
        best = self.favourite
        if best.difference is None or best.standard_error is None:
            return f"The search's best, {best.trial.name}, could not be trained again on all folds."
        row = self.objective
        scale, digits, unit = (100, 2, " points") if row.is_share else (1, 4, "")
        gain = best.difference if row.direction == "maximize" else -best.difference
        amount, error = (
            f"{abs(number) * scale:.{digits}f}{unit}" for number in (gain, best.standard_error)
        )
        how, meaning = "better", "no luck is to be seen in its value there"
        if gain < 0:
            how = "worse"
            meaning = (
                "about so much of its value there was luck, as it is with the best of many (the "
                "winner's curse)"
            )
            if -gain <= 2 * best.standard_error:
                meaning = "no more than two standard errors, which chance alone can do"
        return (
            f"The search's best, {best.trial.name}, is {how} by {amount} of {row.label} on the "
            f"folds than in the search (standard error {error}): {meaning}."
        )

    def _other_sizes(self) -> Iterator[str]:
        """Which candidates trained on other numbers of images than in the search."""
        names: dict[tuple[int, int], list[str]] = {}
        for candidate in self.candidates:
            both = candidate.images_of(self.train_images), candidate.images_of(self.searched_images)
            names.setdefault(both, []).append(candidate.trial.name)
        for (here, there), of in names.items():
            if here != there:
                whom = "" if len(of) == len(self.candidates) else f" {listed(of)}"
                yield (
                    f"Each fold trains{whom} on {here:,} images, "
                    f"{'fewer' if here < there else 'more'} than the search's {there:,}: a part of "
                    "the difference can be that."
                )

    def rows(self) -> list[dict[str, Cell]]:
        """One row a candidate, the best by the folds first."""
        return [
            {
                "place": place,
                "place_in_search": candidate.place,
                "trial": candidate.trial.name,
                "search_value": candidate.searched,
                "folds_mean": candidate.mean,
                "folds_standard_error": candidate.standard_error,
                "difference": candidate.difference,
                **{
                    f"fold_{number + 1}": candidate.values[number] if candidate.values else None
                    for number in range(self.folds)
                },
                "epochs": candidate.length if candidate.values else None,
                "failure": candidate.failure,
            }
            for place, candidate in enumerate(self.candidates, 1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "objective": self.objective.name,
            "folds": self.folds,
            "train_images": self.train_images,
            "searched_images": self.searched_images,
            "notes": list(self.notes),
            "candidates": self.rows(),
        }


def compare_candidates(
    data: SearchData,
    *,
    top: int,
    folds: int,
    device: torch.device,
    watch: Watch = lambda _: None,
) -> FoldComparison:
    """Trains the search's `top` best configurations, or as many as it has, on `folds` divisions of
    its training and validation images, each with a seed of its own and its own early stopping, and
    ranks them by the mean of the objective over the folds.

    The test images are in no fold. As in the search, the value of a training is that of its best
    epoch.

    Raises:
        SearchError: no trial can be trained on all folds.
        DataError: the images do not allow so many folds.
    """
    record, objective = data.record, data.record.objective
    trials = record.ranked()[:top]
    configs = {trial.name: stored_config(trial, device) for trial in trials}
    spec = SplitSpec.from_dict(record.spec["split"])
    splits = k_folds(data.dataset, data.split, folds, spec)
    kept: dict[str, list[EpochResult]] = {trial.name: [] for trial in trials}
    failures: dict[str, str] = {}
    for number, split in enumerate(splits):
        views = DataViews.of(development_data(data.dataset, split), device)
        for trial in trials:
            if trial.name in failures:
                continue
            config = configs[trial.name]
            config = dataclasses.replace(
                config, seed=derive_seed(config.seed, "fold", number) % 2**32
            )
            what = f"fold {number + 1} of {folds}, {trial.name}"
            try:
                kept[trial.name].append(_kept(trial, config, views, device, what, watch))
            except (NonFiniteLossError, InfeasibleError) as error:
                failures[trial.name] = f"fold {number + 1}: {error}"
                watch(RunOver(what=what, epochs=config.epochs, kept=None, failure=str(error)))
    candidates = [
        _candidate(trial, place, kept[trial.name], failures.get(trial.name, ""), objective)
        for place, trial in enumerate(trials, 1)
    ]
    candidates.sort(key=lambda candidate: candidate.key(objective), reverse=True)
    if not candidates[0].values:
        raise SearchError(
            f"none of the {len(candidates)} best configurations of search {record.name!r} can be "
            f"trained on all folds: {candidates[0].trial.name}, {candidates[0].failure}"
        )
    return FoldComparison(
        candidates=tuple(candidates),
        asked=top,
        objective=objective,
        folds=folds,
        train_images=round(_mean_images(splits)),
        searched_images=len(data.split.train),
    )


def _kept(
    trial: TrialRecord,
    config: TrainConfig,
    views: DataViews,
    device: torch.device,
    what: str,
    watch: Watch,
) -> EpochResult:
    """The best epoch of a training on one fold."""
    run = run_training(
        config,
        views,
        device,
        origin={"search": trial.search, "trial": trial.name},
        watch=lambda result: watch(RunEpoch(what=what, epochs=config.epochs, result=result)),
    )
    watch(RunOver(what=what, epochs=config.epochs, kept=run.kept))
    return run.kept


def _candidate(
    trial: TrialRecord, place: int, kept: Sequence[EpochResult], failure: str, objective: Objective
) -> Candidate:
    if failure:
        return Candidate(trial=trial, place=place, failure=failure)
    return Candidate(
        trial=trial,
        place=place,
        values=tuple(objective.value(result) for result in kept),
        losses=tuple(result.val_loss for result in kept),
        best_epochs=tuple(result.epoch for result in kept),
    )


def _mean_images(splits: Sequence[Split]) -> float:
    return statistics.fmean(len(split.train) for split in splits)
