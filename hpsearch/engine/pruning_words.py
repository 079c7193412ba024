"""Why a pruner stopped a trial, in words: as far as it can be told truly afterwards.

What stopped it is worked out again from what the study says. Where that does not agree with the
decision, since a trial ended elsewhere at that very moment, less is said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpsearch.data.words import plural
from hpsearch.engine.policy_options import Values
from hpsearch.training.objectives import Objective
from hpsearch.training.units import objective_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrunedTrial:
    """What is known of a trial that was pruned.

    Attributes:
        reported: the objective's value after each epoch, by its number from 0.
        others: the same of the trials of its family that were complete by then.
    """

    objective: Objective
    reported: Mapping[int, float]
    others: Sequence[Mapping[int, float]]

    @property
    def epoch(self) -> int:
        """The last one."""
        return max(self.reported)

    @property
    def last(self) -> float:
        """The value after it."""
        return self.reported[self.epoch]

    @property
    def best(self) -> float:
        """The best value; not a number where none is."""
        known = [value for value in self.reported.values() if not math.isnan(value)]
        rises = self.objective.direction == "maximize"
        return (max if rises else min)(known, default=math.nan)

    @property
    def others_there(self) -> list[float]:
        """The values of the others at the same epoch."""
        there = [other[self.epoch] for other in self.others if self.epoch in other]
        return [value for value in there if not math.isnan(value)]

    def text(self, value: float) -> str:
        """A value as people write it."""
        return objective_value(self.objective, value)


def below_percentile(values: Values, trial: PrunedTrial) -> str:
    """For pruners that compare with the complete trials; the median is the best 50 percent."""
    if math.isnan(trial.best):
        return _not_a_number(trial)
    rises = trial.objective.direction == "maximize"
    share = float(values.get("percentile", 50.0))
    others = trial.others_there
    if not others:
        return ""
    limit = float(np.percentile(others, 100 - share if rises else share))
    if not (trial.best < limit if rises else trial.best > limit):
        return ""
    count = len(others)
    of = f"{plural(count, 'complete trial')} at that epoch"
    what = f"the median of {of}" if share == 50 else f"what the best {share:g} % of {of} had"
    return (
        f"after epoch {trial.epoch} its best {trial.objective.label} so far, "
        f"{trial.text(trial.best)}, was {'below' if rises else 'above'} {trial.text(limit)}, {what}"
    )


def without_gain(values: Values, trial: PrunedTrial) -> str:
    """For the pruner that waits first."""
    reason = below_percentile({}, trial)
    epochs = values["patience"] + 1
    gain = f"it had not got better for {plural(epochs, 'epoch')}"
    return f"{gain}, and {reason}" if reason else gain


def beyond_limit(values: Values, trial: PrunedTrial) -> str:
    """For the pruner with a threshold."""
    if math.isnan(trial.last):
        return _not_a_number(trial)
    lower, upper = values["lower"], values["upper"]
    if lower is not None and trial.last < lower:
        word, limit = "below", lower
    elif upper is not None and trial.last > upper:
        word, limit = "above", upper
    else:
        return ""
    return (
        f"after epoch {trial.epoch} its {trial.objective.label}, {trial.text(trial.last)}, was "
        f"{word} the threshold of {trial.text(limit)}"
    )


def halved(values: Values, trial: PrunedTrial) -> str:
    """For successive halving, in brackets or not."""
    if math.isnan(trial.last):
        return _not_a_number(trial)
    if values["bootstrap_count"]:
        return ""  # it may have been one of the first, all of which stop
    return (
        f"after epoch {trial.epoch}, a step of successive halving, with its {trial.objective.label}"
        f" of {trial.text(trial.last)} it was not among the best of the trials that had come there:"
        f" one in {values['reduction_factor']} goes on"
    )


def _not_a_number(trial: PrunedTrial) -> str:
    return f"after epoch {trial.epoch} its {trial.objective.label} was not a number"
