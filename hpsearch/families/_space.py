"""Search spaces as code: what asks for parameters, and what lists them.

A family's `suggest` asks a `Suggester` for values. Behind it stands the `Explorer` below that
walks the space to list it, or anything that has Optuna's `suggest_float`, `suggest_int` and
`suggest_categorical`: a trial of a study, or a `FixedTrial` in a test.
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from hpsearch.errors import InfeasibleError, SpaceError
from hpsearch.families._parameter import Override, Parameter, ParamValue, format_list

Result = TypeVar("Result")


class TrialLike(Protocol):
    """The part of Optuna's trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A float between `low` and `high`, both included."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number between `low` and `high`, both included."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of `choices`, a sequence of numbers or strings."""


class Suggester:
    """Asks a trial for parameters, under the user's overrides.

    What is `off` is not asked for unless an override names it: it has that value. `limits`,
    `also`, `least` and `open` are what an override may choose beyond the range that is searched.

    Args:
        trial: gives the values.
        overrides: by name of a parameter; names that the space does not ask for are ignored
            here (`check_overrides` finds them before a search).
        family: what the family whose space it is is called in tables (see `family_label`).
    """

    def __init__(
        self,
        trial: TrialLike | Explorer,
        overrides: Mapping[str, Override] | None = None,
        *,
        family: str = "",
    ) -> None:
        self.family = family
        self._trial = trial
        self._overrides = overrides or {}
        self._asked: dict[str, Parameter] = {}

    def float(
        self,
        name: str,
        low: builtins.float,
        high: builtins.float,
        *,
        log: bool = False,
        off: builtins.float | None = None,
        limits: tuple[builtins.float, builtins.float] | None = None,
        help: str = "",
    ) -> builtins.float:
        """A number between `low` and `high`, both included."""
        row = Parameter(
            name=name, kind="float", low=low, high=high, log=log, off=off, limits=limits, help=help
        )
        return builtins.float(self._ask(row))

    def int(
        self,
        name: str,
        low: builtins.int,
        high: builtins.int,
        *,
        log: bool = False,
        off: builtins.int | None = None,
        limits: tuple[builtins.float, builtins.float] | None = None,
        help: str = "",
    ) -> builtins.int:
        """A whole number between `low` and `high`, both included."""
        row = Parameter(
            name=name, kind="int", low=low, high=high, log=log, off=off, limits=limits, help=help
        )
        return builtins.int(self._ask(row))

    def categorical(
        self,
        name: str,
        choices: Sequence[str],
        *,
        also: Sequence[str] = (),
        open: bool = False,
        off: str | None = None,
        help: str = "",
    ) -> str:
        """One of these names."""
        row = Parameter(
            name=name,
            kind="categorical",
            choices=tuple(choices),
            also=tuple(also),
            open=open,
            off=off,
            help=help,
        )
        return str(self._ask(row))

    def number(
        self,
        name: str,
        choices: Sequence[builtins.int],
        *,
        also: Sequence[builtins.int] = (),
        least: builtins.int | None = None,
        off: builtins.int | None = None,
        help: str = "",
    ) -> builtins.int:
        """One of these whole numbers."""
        row = Parameter(
            name=name,
            kind="categorical",
            choices=tuple(choices),
            also=tuple(also),
            least=least,
            off=off,
            help=help,
        )
        return builtins.int(self._ask(row))

    def flag(self, name: str, *, off: bool | None = None, help: str = "") -> bool:
        """Yes or no."""
        default = None if off is None else "yes" if off else "no"
        return self.categorical(name, ("yes", "no"), off=default, help=help) == "yes"

    def numbers(
        self,
        name: str,
        *,
        least: builtins.float = 1,
        most: builtins.float = math.inf,
        whole: bool = True,
        help: str = "",
    ) -> tuple[Any, ...]:
        """A list of numbers from `least` to `most` where an override gives one; else none."""
        row = Parameter(
            name=name,
            kind="list",
            item="int" if whole else "float",
            low=least,
            high=most,
            off="",
            help=help,
        )
        return row.items(str(self._ask(row)))

    def names(self, name: str, *, help: str = "") -> tuple[str, ...]:
        """A list of names where an override gives one; else none."""
        row = Parameter(name=name, kind="list", item="name", off="", help=help)
        return tuple(str(item) for item in row.items(str(self._ask(row))))

    def choices(self, name: str) -> tuple[str, ...]:
        """All that a `categorical` that was asked for can be under the overrides."""
        row = self._asked[name]
        return tuple(str(choice) for choice in (row.choices if row.searched else (row.off,)))

    def extremes(self, name: str) -> tuple[builtins.int, builtins.int]:
        """The least and the greatest that a `number` that was asked for can be under the
        overrides.
        """
        row = self._asked[name]
        if not row.searched:
            return builtins.int(row.off or 0), builtins.int(row.off or 0)
        ends = (row.low, row.high) if row.kind == "int" else row.choices
        return builtins.int(min(ends)), builtins.int(max(ends))

    def _narrow(self, row: Parameter) -> Parameter:
        if row.name in self._overrides:
            return row.narrowed(self._overrides[row.name])
        return row if row.off is None else dataclasses.replace(row, searched=False)

    def _ask(self, row: Parameter) -> ParamValue:
        row = self._asked[row.name] = self._narrow(row)
        if isinstance(self._trial, Explorer):
            return self._trial.answer(row)
        if not row.searched:
            return typing.cast(ParamValue, row.off)
        if row.kind == "float":
            return self._trial.suggest_float(row.name, row.low, row.high, log=row.log)
        if row.kind == "int":
            low, high = round(row.low), round(row.high)
            return self._trial.suggest_int(row.name, low, high, log=row.log)
        chosen: ParamValue = self._trial.suggest_categorical(row.name, row.choices)
        return chosen


class Explorer:
    """Stands in for a trial: records what a `Suggester` asks for and answers with what it is told
    to, or the nearest that is allowed; else with the value of what is not searched, or the middle.

    Args:
        answers: by name of a parameter.
        everything: ask for what is not searched, too.
    """

    def __init__(self, answers: Mapping[str, ParamValue], *, everything: bool = False) -> None:
        self.answers = dict(answers)
        self.asked: dict[str, Parameter] = {}
        self._everything = everything

    def answer(self, row: Parameter) -> ParamValue:
        """The value of a parameter."""
        told = self.answers.get(row.name)
        if not row.searched:
            value = typing.cast(ParamValue, row.off)
            if not self._everything:
                return value
            value = value if told is None else told
        elif told is not None:
            value = row.nearest(told)
        else:
            # What means "off", such as 0, is often outside of the range, and its ends are extreme.
            usual = row.off is not None and row.allows(row.off)
            value = typing.cast(ParamValue, row.off) if usual else row.middle
        self.asked[row.name] = row
        self.answers[row.name] = value
        return value

    @property
    def params(self) -> dict[str, ParamValue]:
        """The values of exactly those parameters that were asked for."""
        return {name: self.answers[name] for name in self.asked}


def explore(
    suggest: Callable[[Explorer], object], *, everything: bool = False
) -> tuple[Parameter, ...]:
    """Lists the parameters of a space, conditional ones included, by running it.

    Each parameter is tried at each of its choices (a number at both ends), the others staying
    as they were when it was first met; so a parameter that exists only for one choice of
    another is found, one that needs two choices at once by chance only. What is infeasible is
    passed over. In a `condition`, any value of a list that an override gives is "given".

    Args:
        everything: list also what is not searched unless an override says so.

    Raises:
        SpaceError: a parameter has different ranges at different places.
        InfeasibleError: nothing feasible was found (see `first_feasible`).
    """
    found: dict[str, Parameter] = {}
    values: dict[str, dict[str, set[ParamValue]]] = {}
    depends: dict[str, set[str]] = {}
    start, _ = first_feasible(suggest, {}, everything=everything)
    waiting: list[tuple[dict[str, ParamValue], str, set[str]]] = [(start.answers, "", set())]
    while waiting:
        answers, changed, before = waiting.pop(0)
        explorer = Explorer(answers, everything=everything)
        try:
            suggest(explorer)
        except InfeasibleError:
            continue
        if changed:
            for name in before ^ set(explorer.asked):
                depends.setdefault(name, set()).add(changed)
        for name, row in explorer.asked.items():
            seen = values.setdefault(name, {})
            for other in explorer.asked:
                seen.setdefault(other, set()).add(explorer.answers[other])
            if name in found:
                _check_same(found[name], row)
                continue
            found[name] = row
            asked = set(explorer.asked)
            waiting.extend(({**explorer.answers, name: v}, name, asked) for v in _ends(row))
    return tuple(
        dataclasses.replace(
            row,
            condition={
                other: _in_condition(found[other], values[name][other])
                for other in sorted(depends.get(name, ()))
                if other != name and other in values[name]
            },
        )
        for name, row in found.items()
    )


def _check_same(row: Parameter, again: Parameter) -> None:
    for field in (field.name for field in dataclasses.fields(row)):
        one, other = getattr(row, field), getattr(again, field)
        if one != other:
            raise SpaceError(
                f"parameter {row.name!r} is asked for with the {field} {one!r} and, under other "
                f"values, {other!r}; it must be the same everywhere"
            )


def _in_condition(row: Parameter, values: set[ParamValue]) -> tuple[ParamValue, ...]:
    """The values of `row` under which another parameter exists. Of a list that only an override
    gives, one was tried where any will do.
    """
    if row.kind == "list":
        values = {"given" if value else value for value in values}
    return tuple(sorted(values, key=str))


def _ends(row: Parameter) -> tuple[ParamValue, ...]:
    if row.kind == "list":
        number: float = max(1, round(row.low)) if row.item == "int" else min(0.5, row.high)
        return ("name",) if row.item == "name" else (format_list([number]),)
    return row.choices if row.kind == "categorical" else (row.low, row.high)


def first_feasible(
    suggest: Callable[[Explorer], Result],
    answers: Mapping[str, ParamValue],
    *,
    everything: bool = False,
) -> tuple[Explorer, Result]:
    """Runs a space with `answers` and, where these are infeasible, with each parameter at its
    other choices (a number at both ends) until it is feasible.

    Returns:
        The explorer that was asked, and what `suggest` gave.

    Raises:
        InfeasibleError: none of them is feasible; what was wrong with `answers`.
    """
    waiting, varied = [dict(answers)], set[str]()
    errors: list[InfeasibleError] = []
    for tried in waiting:  # which grows meanwhile
        explorer = Explorer(tried, everything=everything)
        try:
            return explorer, suggest(explorer)
        except InfeasibleError as error:
            errors.append(error)
        # What was asked last is most likely what did not fit.
        for name, row in reversed(explorer.asked.items()):
            if name not in varied:
                varied.add(name)
                waiting += [{**explorer.answers, name: value} for value in _ends(row)]
    raise errors[0]


def settle(
    suggest: Callable[[Explorer], object], values: Mapping[str, ParamValue]
) -> dict[str, ParamValue]:
    """A value for exactly those parameters that a space asks for, as near to `values` as it
    allows; the middle of the range where `values` has none.

    Raises:
        InfeasibleError: they cannot be trained.
    """
    explorer = Explorer(values)
    suggest(explorer)
    return explorer.params


def space_fingerprint(parameters: Sequence[Parameter]) -> str:
    """SHA-256 over names, kinds, ranges and choices, whatever their order."""
    fields = ("name", "kind", "low", "high", "log", "choices")
    rows = [{field: getattr(row, field) for field in fields} for row in parameters]
    rows.sort(key=lambda row: str(row["name"]))
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
