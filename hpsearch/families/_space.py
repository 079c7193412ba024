"""Search spaces as code: what asks for parameters, what overrides them, what lists them.

A family's `suggest` asks a `Suggester` for values. Behind it stands anything that has
Optuna's `suggest_float`, `suggest_int` and `suggest_categorical`: a trial of a study, a
`FixedTrial` in a test, or the `_Explorer` below that walks the space to list it.
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from hpsearch.errors import SpaceError

ParamValue = bool | int | float | str


class TrialLike(Protocol):
    """The part of Optuna's trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A float between `low` and `high`, both included."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number between `low` and `high`, both included."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of `choices`, a sequence of numbers or strings."""


@dataclasses.dataclass(frozen=True)
class Range:
    """An override that narrows a number to `low` .. `high`, both included."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise SpaceError(f"a range must rise, but got {self.low!r} to {self.high!r}")


Override = ParamValue | Range | tuple[ParamValue, ...]
"""A value fixes a parameter, a `Range` narrows it, a tuple leaves only some of its choices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a space: a number from `low` to `high`, or one of `choices`."""

    name: str
    kind: Literal["float", "int", "categorical"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[ParamValue, ...] = ()

    def __str__(self) -> str:
        if self.kind == "categorical":
            return f"one of {', '.join(str(choice) for choice in self.choices)}"
        return f"{self.low:g} to {self.high:g}"

    def nearest(self, value: ParamValue) -> ParamValue:
        """`value` where the parameter allows it, else what comes nearest to it."""
        if self.kind == "categorical":
            return self._nearest_choice(value)
        clipped = min(max(float(value), self.low), self.high)
        return int(clipped) if self.kind == "int" else clipped

    def _nearest_choice(self, value: ParamValue) -> ParamValue:
        if value in self.choices:
            return value
        numbers = [choice for choice in self.choices if isinstance(choice, int | float)]
        if len(numbers) < len(self.choices) or isinstance(value, str):
            return self.choices[0]
        return min(numbers, key=lambda choice: abs(choice - value))

    @property
    def middle(self) -> ParamValue:
        """The middle of the range, on its scale; the first of the choices."""
        if self.kind == "categorical":
            return self.choices[0]
        mean = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return self.nearest(round(mean) if self.kind == "int" else mean)

    def narrowed(self, override: Override) -> Parameter:
        """The parameter under `override`.

        Raises:
            SpaceError: the override is not inside of the parameter, or not of its kind.
        """
        if self.kind == "categorical":
            chosen = override if isinstance(override, tuple) else (override,)
            foreign = [choice for choice in chosen if choice not in self.choices]
            if foreign or not chosen:
                raise SpaceError(f"{self.name} must be {self}, but got {_show(override)}")
            allowed = tuple(choice for choice in self.choices if choice in chosen)
            return dataclasses.replace(self, choices=allowed)
        low, high = (
            (override.low, override.high) if isinstance(override, Range) else (override, override)
        )
        for bound in (low, high):
            is_number = isinstance(bound, int | float) and not isinstance(bound, bool)
            if not is_number or not self.low <= bound <= self.high:  # type: ignore[operator]
                raise SpaceError(f"{self.name} must be within {self}, but got {_show(override)}")
            if self.kind == "int" and bound != int(bound):  # type: ignore[arg-type]
                raise SpaceError(f"{self.name} must be a whole number, but got {_show(override)}")
        return dataclasses.replace(self, low=float(low), high=float(high))  # type: ignore[arg-type]


def _show(override: Override) -> str:
    if isinstance(override, Range):
        return f"{override.low}..{override.high}"
    if isinstance(override, tuple):
        return ", ".join(str(choice) for choice in override)
    return repr(override)


class Suggester:
    """Asks a trial for parameters, under the user's overrides.

    Args:
        trial: gives the values.
        overrides: by name of a parameter; names that the space does not ask for are ignored
            here (`check_overrides` finds them before a search).
    """

    def __init__(self, trial: TrialLike, overrides: Mapping[str, Override] | None = None) -> None:
        self._trial = trial
        self._overrides = overrides or {}

    # Inside of the class, `float` and `int` are these methods: types are named by their module.

    def float(
        self, name: str, low: builtins.float, high: builtins.float, *, log: bool = False
    ) -> builtins.float:
        """A float from `low` to `high`, both included; `log`: uniform in the logarithm."""
        row = self._narrow(Parameter(name=name, kind="float", low=low, high=high, log=log))
        return self._trial.suggest_float(name, row.low, row.high, log=log)

    def int(
        self, name: str, low: builtins.int, high: builtins.int, *, log: bool = False
    ) -> builtins.int:
        """A whole number from `low` to `high`, both included."""
        row = self._narrow(Parameter(name=name, kind="int", low=low, high=high, log=log))
        return self._trial.suggest_int(name, round(row.low), round(row.high), log=log)

    def categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of these names."""
        return str(self._choice(name, choices))

    def number(self, name: str, choices: Sequence[builtins.int]) -> builtins.int:
        """One of these whole numbers."""
        return builtins.int(self._choice(name, choices))

    def choices(self, name: str, choices: Sequence[str]) -> tuple[str, ...]:
        """Those of `choices` that an override leaves, without asking for one of them."""
        row = self._narrow(Parameter(name=name, kind="categorical", choices=tuple(choices)))
        return tuple(str(choice) for choice in row.choices)

    def _choice(self, name: str, choices: Sequence[ParamValue]) -> ParamValue:
        row = self._narrow(Parameter(name=name, kind="categorical", choices=tuple(choices)))
        chosen: ParamValue = self._trial.suggest_categorical(name, row.choices)
        return chosen

    def _narrow(self, parameter: Parameter) -> Parameter:
        if parameter.name not in self._overrides:
            return parameter
        return parameter.narrowed(self._overrides[parameter.name])


class _Explorer:
    """A trial that records what it is asked for and answers with what it is told to, or the
    nearest that is allowed; with the middle of the range where it was told nothing.
    """

    def __init__(self, answers: Mapping[str, ParamValue]) -> None:
        self.answers = dict(answers)
        self.asked: dict[str, Parameter] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        row = Parameter(name=name, kind="float", low=low, high=high, log=log)
        return float(self._answer(row))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        row = Parameter(name=name, kind="int", low=low, high=high, log=log)
        return int(self._answer(row))

    def suggest_categorical(self, name: str, choices: Sequence[ParamValue]) -> ParamValue:
        row = Parameter(name=name, kind="categorical", choices=tuple(choices))
        return self._answer(row)

    def _answer(self, row: Parameter) -> ParamValue:
        self.asked[row.name] = row
        told = self.answers.get(row.name)
        self.answers[row.name] = row.middle if told is None else row.nearest(told)
        return self.answers[row.name]


def explore(suggest: Callable[[TrialLike], object]) -> tuple[Parameter, ...]:
    """Lists the parameters of a space, conditional ones included, by running it.

    Each parameter is tried at each of its choices (a number at both ends), the others staying
    as they were when it was first met; so a parameter that exists only for one choice of
    another is found, one that needs two choices at once by chance only.

    Raises:
        SpaceError: a parameter has different ranges at different places.
    """
    found: dict[str, Parameter] = {}
    waiting: list[dict[str, ParamValue]] = [{}]
    while waiting:
        explorer = _Explorer(waiting.pop(0))
        suggest(explorer)
        for name, row in explorer.asked.items():
            if name in found:
                if found[name] != row:
                    raise SpaceError(f"parameter {name!r} is both {found[name]} and {row}")
                continue
            found[name] = row
            ends = row.choices if row.kind == "categorical" else (row.low, row.high)
            waiting.extend({**explorer.answers, name: value} for value in ends)
    return tuple(found.values())


def settle(
    suggest: Callable[[TrialLike], object], values: Mapping[str, ParamValue]
) -> dict[str, ParamValue]:
    """A value for exactly those parameters that a space asks for, as near to `values` as it
    allows; the middle of the range where `values` has none.
    """
    explorer = _Explorer(values)
    suggest(explorer)
    return {name: explorer.answers[name] for name in explorer.asked}


def space_fingerprint(parameters: Sequence[Parameter]) -> str:
    """SHA-256 over names, kinds, ranges and choices, whatever their order."""
    rows = sorted((dataclasses.asdict(row) for row in parameters), key=lambda row: row["name"])
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def parse_override(text: str) -> tuple[str, Override]:
    """Reads `NAME=VALUE`, `NAME=LOW..HIGH` or `NAME=CHOICE,CHOICE` as written after `--set`.

    Raises:
        SpaceError: the text has no such form.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise SpaceError(f"--set takes NAME=VALUE, for example lr=1e-3, but got {text!r}")
    low, dots, high = value.partition("..")
    if dots:
        ends = (_parse_value(low), _parse_value(high))
        if not all(isinstance(end, int | float) for end in ends):
            raise SpaceError(f"--set {name}: a range is two numbers, LOW..HIGH, but got {value!r}")
        return name, Range(*ends)  # type: ignore[arg-type]
    if "," in value:
        return name, tuple(_parse_value(part) for part in value.split(",") if part.strip())
    return name, _parse_value(value)


def _parse_value(text: str) -> ParamValue:
    text = text.strip()
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text
