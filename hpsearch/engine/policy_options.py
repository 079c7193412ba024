"""The settings of samplers and pruners: what there are, their defaults, and what is allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from hpsearch.errors import SearchError
from hpsearch.families import ParamValue

Values = Mapping[str, Any]
"""Of all settings of a sampler or pruner, by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a family is given, which some defaults follow from.

    Attributes:
        share: how many of the search's trials are the family's.
        epochs: of each of its trials.
    """

    share: int
    epochs: int

    @property
    def startup_trials(self) -> int:
        """How many trials are tried before the sampler models and the pruner judges."""
        return min(10, max(3, self.share // 4))


AMPLE = Budget(share=10**6, epochs=10**6)
"""For checks made before the budget is known: no setting is too large for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a sampler or pruner.

    Attributes:
        kind: int, float, bool or str.
        default: a value; or what it follows from, which `usual` says in words; None: not set.
        low, high: the least and the greatest number allowed.
        choices: of a str, those allowed.
    """

    name: str
    help: str
    kind: type[int] | type[float] | type[bool] | type[str]
    default: ParamValue | Callable[[Budget], ParamValue] | None
    usual: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """What values are allowed, in words."""
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return f"one of {', '.join(self.choices)}"
        number = "a whole number" if self.kind is int else "a number"
        if self.high < math.inf:
            return f"{number} from {self.low:g} to {self.high:g}"
        return f"{number} of at least {self.low:g}" if self.low > -math.inf else number

    @property
    def default_text(self) -> str:
        """The default, for people."""
        if self.usual or self.default is None:
            return self.usual or "not set"
        return str(self.default).lower() if self.kind is bool else str(self.default)

    def default_for(self, budget: Budget) -> ParamValue | None:
        """The default under a budget."""
        return self.default(budget) if callable(self.default) else self.default

    def allows(self, value: object) -> bool:
        """Whether the setting can have `value`; a whole number is a number, too."""
        if self.kind is bool:
            return isinstance(value, bool)
        if self.kind is str:
            return value in self.choices
        kinds = int if self.kind is int else int | float
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return math.isfinite(value) and self.low <= value <= self.high


class PolicyInfo(Protocol):
    """What the rows of both tables have."""

    @property
    def name(self) -> str:
        """As the user gives it."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What can be set."""


Row = TypeVar("Row", bound=PolicyInfo)


def find_row(what: str, rows: Sequence[Row], name: object) -> Row:
    """The row called `name` of a table of `what`: "sampler" or "pruner".

    Raises:
        SearchError: there is none.
    """
    for row in rows:
        if row.name == name:
            return row
    raise SearchError(f"{what} must be one of {', '.join(r.name for r in rows)}, but is {name!r}")


def settle(
    what: str, row: PolicyInfo, options: Mapping[str, ParamValue], budget: Budget
) -> dict[str, Any]:
    """The values of all settings of a row: those given, else the defaults under a budget.

    Raises:
        SearchError: a setting is unknown, or its value is not allowed.
    """
    known = [setting.name for setting in row.settings]
    for name in options:
        if name not in known:
            has = f"has {', '.join(known)}" if known else "has no settings"
            raise SearchError(f"{what} {row.name} has no setting {name!r}; it {has}")
    values: dict[str, Any] = {}
    for setting in row.settings:
        if setting.name not in options:
            values[setting.name] = setting.default_for(budget)
            continue
        value = options[setting.name]
        if not setting.allows(value):
            raise SearchError(
                f"{setting.name} of {what} {row.name} must be {setting.rule}, but is {value!r}"
            )
        values[setting.name] = float(value) if setting.kind is float else value
    return values
