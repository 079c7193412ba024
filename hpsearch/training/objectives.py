"""What a search is for: the objectives by which epochs and trials are ranked.

A new one is one row of `OBJECTIVES`. What a model costs, which a search can be for as well, is in
`hpsearch.training.costs`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, Protocol

from hpsearch.checks import look_up


class ValidationScores(Protocol):
    """What an objective may look at: part of an `EpochResult`."""

    @property
    def val_loss(self) -> float:
        """Mean cross-entropy over the validation images."""

    @property
    def val_accuracy(self) -> float:
        """Share of the validation images that were classified right."""

    @property
    def val_balanced_accuracy(self) -> float:
        """Mean of that share over the classes."""

    @property
    def val_macro_f1(self) -> float:
        """Mean F1 of the classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """One row of `OBJECTIVES`.

    Attributes:
        name: as the user gives it: "val_", and what is measured.
        label: for people, in a sentence.
        short: for people, above a column of values.
        direction: "maximize" or "minimize", as Optuna says it.
        is_share: values are between 0 and 1 and shown in percent.
        value: of an epoch.
    """

    name: str
    label: str
    short: str
    direction: Literal["maximize", "minimize"]
    is_share: bool
    value: Callable[[ValidationScores], float]

    @property
    def unit(self) -> str:
        """What values are: "share", or empty where they have no unit."""
        return "share" if self.is_share else ""

    def key(self, result: ValidationScores) -> tuple[float, float]:
        """Of epochs, the best is the one with the greatest key."""
        return self.key_of(self.value(result), result.val_loss)

    def key_of(self, value: float, val_loss: float) -> tuple[float, float]:
        """The key of a value of this objective: ties go to the lower validation loss.

        Epochs of a training and trials of a search are ranked by this one definition. What is
        not a number is worse than any.
        """
        signed = value if self.direction == "maximize" else -value
        first, second = (-math.inf if math.isnan(part) else part for part in (signed, -val_loss))
        return first, second

    def gain(self, new: ValidationScores, old: ValidationScores) -> float:
        """How much better the value of `new` is than that of `old`; below 0: worse."""
        rise = self.value(new) - self.value(old)
        return rise if self.direction == "maximize" else -rise


OBJECTIVES: tuple[Objective, ...] = (
    Objective(
        name="val_accuracy",
        label="validation accuracy",
        short="val. acc.",
        direction="maximize",
        is_share=True,
        value=lambda result: result.val_accuracy,
    ),
    Objective(
        name="val_balanced_accuracy",
        label="validation balanced accuracy",
        short="bal. acc.",
        direction="maximize",
        is_share=True,
        value=lambda result: result.val_balanced_accuracy,
    ),
    Objective(
        name="val_macro_f1",
        label="validation macro F1",
        short="macro F1",
        direction="maximize",
        is_share=True,
        value=lambda result: result.val_macro_f1,
    ),
    Objective(
        name="val_loss",
        label="validation loss",
        short="loss",
        direction="minimize",
        is_share=False,
        value=lambda result: result.val_loss,
    ),
)

DEFAULT_OBJECTIVE = OBJECTIVES[0].name

_BY_NAME = {row.name: row for row in OBJECTIVES}


def objective_info(name: str) -> Objective:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("objective", name, _BY_NAME)
