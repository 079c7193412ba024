"""The trainings of one configuration with several seeds, and how much they differ."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t as student_t

from hpsearch.results.tables import Cell
from hpsearch.training.epoch import EpochResult

_VALIDATION = ("val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss")
_TEST = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SeedRun:
    """A training with one seed.

    Attributes:
        history: all its epochs; none where it failed.
        kept: the epoch whose weights are tested; None where it failed.
        failure: why it failed, or empty.
        test_scores: on the test images (`Scores.metrics`); empty until they are known.
        new_scores: the same without those that the weights had seen which training started from;
            empty where these are all or none.
    """

    seed: int
    history: tuple[EpochResult, ...] = ()
    kept: EpochResult | None = None
    failure: str = ""
    test_scores: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    new_scores: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """That its training took."""
        return sum(result.seconds for result in self.history)

    def row(self, *, is_kept: bool) -> dict[str, Cell]:
        """A row of a table; what there is not is None."""
        kept = self.kept
        scores = {
            name: None if kept is None or math.isnan(value := getattr(kept, name)) else value
            for name in _VALIDATION
        }
        return {
            "seed": self.seed,
            "kept": is_kept,
            "epochs": len(self.history),
            "epoch": None if kept is None else kept.epoch,
            **scores,
            **{f"test_{name}": self.test_scores.get(name) for name in _TEST},
            "seconds": self.seconds,
            "failure": self.failure,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and spread of a number over seeds.

    Attributes:
        std: the standard deviation of one training; None where there is but one.
        interval: 95 % interval of the mean, by Student's t, of three or more that are not all the
            same; else None. It tells of other seeds on the same images, not of other images.
    """

    count: int
    mean: float
    std: float | None = None
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, shares: Sequence[float]) -> Spread:
        """Of shares from 0 to 1, at least one; the interval is cut to these limits."""
        count, mean = len(shares), statistics.fmean(shares)
        if count == 1:
            return cls(count=1, mean=mean)
        std = statistics.stdev(shares)
        if count == 2 or std == 0.0:  # two that agree by chance are no certainty
            return cls(count=count, mean=mean, std=std)
        half = float(student_t.ppf(0.975, count - 1)) * std / math.sqrt(count)
        interval = (max(0.0, mean - half), min(1.0, mean + half))
        return cls(count=count, mean=mean, std=std, interval=interval)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        interval = None if self.interval is None else list(self.interval)
        return {
            "seeds": self.count,
            "mean": self.mean,
            "std": self.std,
            "interval_95": interval,
        }
