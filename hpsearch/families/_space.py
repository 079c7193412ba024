"""Search spaces as code: what asks for parameters, and what lists them.

A family's `suggest` asks a `Suggester` for values. Behind it stands anything that has
Optuna's `suggest_float`, `suggest_int` and `suggest_categorical`: a trial of a study, a
`FixedTrial` in a test, or the `Explorer` below that walks the space to list it.
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hpsearch.errors import InfeasibleError, SpaceError
from hpsearch.families._parameter import Override, Parameter, ParamValue, format_list


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
    """

    def __init__(self, trial: TrialLike, overrides: Mapping[str, Override] | None = None) -> None:
        self._trial = trial
        self._overrides = overrides or {}

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
        return str(self._ask(_names(name, choices, also=also, open=open, off=off, help=help)))

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

    def choices(
        self,
        name: str,
        choices: Sequence[str],
        *,
        also: Sequence[str] = (),
        open: bool = False,
        off: str | None = None,
    ) -> tuple[str, ...]:
        """What `categorical` can give under the overrides, without asking for one of them."""
        row = self._narrow(_names(name, choices, also=also, open=open, off=off))
        return tuple(str(choice) for choice in (row.choices if row.searched else (row.off,)))

    def extremes(
        self,
        name: str,
        choices: Sequence[builtins.int],
        *,
        least: builtins.int | None = None,
        off: builtins.int | None = None,
    ) -> tuple[builtins.int, builtins.int]:
        """The least and the greatest of the numbers that an override leaves, without asking."""
        row = self._narrow(
            Parameter(name=name, kind="categorical", choices=tuple(choices), least=least, off=off)
        )
        if not row.searched:
            return builtins.int(row.off or 0), builtins.int(row.off or 0)
        ends = (row.low, row.high) if row.kind == "int" else row.choices
        return builtins.int(min(ends)), builtins.int(max(ends))

    def _narrow(self, row: Parameter) -> Parameter:
        if row.name in self._overrides:
            return row.narrowed(self._overrides[row.name])
        return row if row.off is None else dataclasses.replace(row, searched=False)

    def _ask(self, row: Parameter) -> ParamValue:
        row = self._narrow(row)
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


def _names(
    name: str,
    choices: Sequence[str],
    *,
    also: Sequence[str] = (),
    open: bool = False,
    off: str | None = None,
    help: str = "",
) -> Parameter:
    return Parameter(
        name=name,
        kind="categorical",
        choices=tuple(choices),
        also=tuple(also),
        open=open,
        off=off,
        help=help,
    )


class Explorer:
    """Stands in for a trial: records what it is asked for and answers with what it is told to, or
    the nearest that is allowed; else with the value of what is not searched, or the middle.

    Args:
        answers: by name of a parameter.
        everything: ask for what is not searched, too.
    """

    def __init__(self, answers: Mapping[str, ParamValue], *, everything: bool = False) -> None:
        self.answers = dict(answers)
        self.asked: dict[str, Parameter] = {}
        self._everything = everything

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """As a trial does."""
        row = Parameter(name=name, kind="float", low=low, high=high, log=log)
        return float(self.answer(row))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """As a trial does."""
        row = Parameter(name=name, kind="int", low=low, high=high, log=log)
        return int(self.answer(row))

    def suggest_categorical(self, name: str, choices: Sequence[ParamValue]) -> ParamValue:
        """As a trial does."""
        row = Parameter(name=name, kind="categorical", choices=tuple(choices))
        return self.answer(row)

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


def explore(
    suggest: Callable[[TrialLike], object], *, everything: bool = False
) -> tuple[Parameter, ...]:
    """Lists the parameters of a space, conditional ones included, by running it.

    Each parameter is tried at each of its choices (a number at both ends), the others staying
    as they were when it was first met; so a parameter that exists only for one choice of
    another is found, one that needs two choices at once by chance only.

    Args:
        everything: list also what is not searched unless an override says so.

    Raises:
        SpaceError: a parameter has different ranges at different places.
    """
    found: dict[str, Parameter] = {}
    values: dict[str, dict[str, set[ParamValue]]] = {}
    depends: dict[str, set[str]] = {}
    waiting: list[tuple[dict[str, ParamValue], str, set[str]]] = [({}, "", set())]
    while waiting:
        answers, changed, before = waiting.pop(0)
        explorer = Explorer(answers, everything=everything)
        try:
            suggest(explorer)
        except InfeasibleError:
            if not changed:
                raise
            continue
        if changed:
            for name in before ^ set(explorer.asked):
                depends.setdefault(name, set()).add(changed)
        for name, row in explorer.asked.items():
            seen = values.setdefault(name, {})
            for other in explorer.asked:
                seen.setdefault(other, set()).add(explorer.answers[other])
            if name in found:
                if found[name] != row:
                    raise SpaceError(f"parameter {name!r} is both {found[name]} and {row}")
                continue
            found[name] = row
            asked = set(explorer.asked)
            waiting.extend(({**explorer.answers, name: v}, name, asked) for v in _ends(row))
    return tuple(
        dataclasses.replace(
            row,
            condition={
                other: tuple(sorted(values[name].get(other, ()), key=str))
                for other in sorted(depends.get(name, ()))
                if other != name and len(values[name].get(other, ())) > 0
            },
        )
        for name, row in found.items()
    )


def _ends(row: Parameter) -> tuple[ParamValue, ...]:
    if row.kind == "list":
        number: float = max(1, round(row.low)) if row.item == "int" else min(0.5, row.high)
        return ("name",) if row.item == "name" else (format_list([number]),)
    return row.choices if row.kind == "categorical" else (row.low, row.high)


def settle(
    suggest: Callable[[TrialLike], object], values: Mapping[str, ParamValue]
) -> dict[str, ParamValue]:
    """A value for exactly those parameters that a space asks for, as near to `values` as it
    allows; the middle of the range where `values` has none.
    """
    explorer = Explorer(values)
    suggest(explorer)
    return {name: explorer.answers[name] for name in explorer.asked}


def space_fingerprint(parameters: Sequence[Parameter]) -> str:
    """SHA-256 over names, kinds, ranges and choices, whatever their order."""
    fields = ("name", "kind", "low", "high", "log", "choices")
    rows = [{field: getattr(row, field) for field in fields} for row in parameters]
    rows.sort(key=lambda row: str(row["name"]))
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
