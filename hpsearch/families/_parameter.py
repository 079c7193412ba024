"""What a parameter of a search space is, and what an override makes of it."""

from __future__ import annotations

import builtins
import dataclasses
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from hpsearch.errors import SpaceError
from hpsearch.names import value_text

ParamValue = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Range:
    """An override that narrows a number to `low` .. `high`, both included."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(isinstance(end, int | float) for end in (self.low, self.high)):
            raise SpaceError(f"a range is two numbers, but got {self.low!r} and {self.high!r}")
        if not self.low <= self.high:
            raise SpaceError(f"a range must rise, but got {self.low!r} to {self.high!r}")


Override = ParamValue | list[Any] | Range | tuple[Any, ...]
"""A value fixes a parameter, a `Range` narrows it, a tuple leaves only these choices; a list is one
value of a parameter that is a list, such as the widths of layers. "search" searches a parameter
that by default is not searched."""


SEARCH = "search"
"""An override that searches a parameter, over its own range, that by default is not searched."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a space.

    Attributes:
        kind: a number from `low` to `high` (on a log scale where `log`), one of `choices`, or a
            "list" of `item`s, written as 512/256/128, which only an override gives.
        off: its value where it is not searched unless an override says so; None: it is searched.
        limits: the least and greatest number that an override may give; the range where None.
        also: further choices that an override may give.
        least: an override may give any whole number from here, or a range of them.
        open: an override may give any text.
        searched: whether a trial is asked for it.
        condition: by name of another parameter, the values under which this one exists; of a
            list "" where it is not given, and "given".
    """

    name: str
    kind: Literal["float", "int", "categorical", "list"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[ParamValue, ...] = ()
    off: ParamValue | None = None
    limits: tuple[float, float] | None = None
    also: tuple[ParamValue, ...] = ()
    least: builtins.int | None = None
    open: bool = False
    item: Literal["int", "float", "name"] = "int"
    help: str = ""
    searched: bool = True
    condition: Mapping[str, tuple[ParamValue, ...]] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        if self.kind == "list":
            if self.item == "name":
                return "a list of names"
            kind = "whole numbers" if self.item == "int" else "numbers"
            limits = (
                f"{self.low:g} to {self.high:g}" if self.high < math.inf else f"from {self.low:g}"
            )
            return f"a list of {kind} {limits}"
        if self.kind == "categorical":
            more = ", ..." if self.open or self.least is not None else ""
            return f"one of {listed_values(self.choices)}{more}"
        return f"{self.low:g} to {self.high:g}"

    def allows(self, value: ParamValue) -> bool:
        """Whether `value` is in the range or among the choices."""
        if self.kind == "categorical":
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

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
        """The middle of the range, on its scale; the middle one of choices that are whole numbers,
        and the first of others.
        """
        if self.kind == "categorical":
            numeric = all(isinstance(choice, int) for choice in self.choices)
            return self.choices[len(self.choices) // 2 if numeric else 0]
        mean = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return self.nearest(round(mean) if self.kind == "int" else mean)

    def narrowed(self, override: Override) -> Parameter:
        """The parameter as `override` wants it searched.

        Raises:
            SpaceError: the override is beyond what the parameter allows, or not of its kind.
        """
        row = self if override == SEARCH else self._replaced(override)
        if row.kind == "list":
            raise SpaceError(f"{self.name} is {self}: give it, as in {self._example}")
        return dataclasses.replace(row, searched=True)

    @property
    def _example(self) -> str:
        lists = {"int": "256/128", "float": "0.01/0.001", "name": "stage1/stage2"}
        return f"{self.name}={lists[self.item]}"

    def _replaced(self, override: Override) -> Parameter:
        if self.kind == "list":
            chosen = override if isinstance(override, tuple) else (override,)
            lists = tuple(format_list(self._items(value)) for value in chosen)
            return dataclasses.replace(self, kind="categorical", choices=lists)
        if isinstance(override, Range) and self.least is not None:
            row = dataclasses.replace(
                self,
                kind="int",
                choices=(),
                log=True,
                least=None,
                limits=(max(1, self.least), math.inf),
            )
            return row._replaced(override)
        if self.kind == "categorical":
            return self._chosen(override if isinstance(override, tuple) else (override,))
        if isinstance(override, tuple):
            return self._listed(override)
        ends = (override.low, override.high) if isinstance(override, Range) else (override,) * 2
        least, most = self.limits or (self.low, self.high)
        for bound in ends:
            is_number = isinstance(bound, int | float) and not isinstance(bound, bool)
            if bound == self.off and is_number:
                continue
            if isinstance(bound, str):
                raise SpaceError(
                    f"{self.name} must be a number, {least:g} to {most:g}, but got {bound!r}"
                    f"{_range_hint(bound)}"
                )
            # A whole number can be larger than any float: that is not finite either.
            if (
                not is_number
                or not least <= bound <= most  # type: ignore[operator]
                or not abs(bound) <= sys.float_info.max  # type: ignore[arg-type]
            ):
                limits = f"within {least:g} to {most:g}"
                if most == math.inf:
                    limits = f"a finite number from {least:g}"
                raise SpaceError(f"{self.name} must be {limits}, but got {_show(override)}")
            if self.kind == "int" and bound != int(bound):  # type: ignore[arg-type]
                raise SpaceError(f"{self.name} must be a whole number, but got {_show(override)}")
        low, high = (float(end) for end in ends)  # type: ignore[arg-type]
        if self.log and low <= 0 and low < high:
            raise SpaceError(
                f"{self.name} is searched on a log scale, so its range must start above 0, but got "
                f"{_show(override)}"
            )
        return dataclasses.replace(self, low=low, high=high, log=self.log and low > 0)

    def _listed(self, chosen: tuple[Any, ...]) -> Parameter:
        """A number that has only these values, each checked as one that fixes it."""
        if not chosen or any(isinstance(value, Range | tuple) for value in chosen):
            raise SpaceError(f"{self.name} must be numbers, {self}, but got {_show(chosen)}")
        numbers = [self._replaced(value).low for value in chosen]
        values = tuple(dict.fromkeys(int(n) if self.kind == "int" else n for n in numbers))
        row = dataclasses.replace(self, kind="categorical", choices=values, log=False)
        return dataclasses.replace(row, low=min(numbers), high=max(numbers))

    def _chosen(self, chosen: tuple[ParamValue | Sequence[Any], ...]) -> Parameter:
        if self.open:  # a name can be all digits
            chosen = tuple(str(name) if type(name) is int else name for name in chosen)
        allowed = (*self.choices, *self.also, *(() if self.off is None else (self.off,)))
        foreign = [choice for choice in chosen if choice not in allowed and not self._fits(choice)]
        if foreign or not chosen:
            known = listed_values(value for value in dict.fromkeys(allowed) if value != "")
            more = ", or any text" if self.open else ""
            if self.least is not None:
                more = f", or any whole number from {self.least}"
            raise SpaceError(f"{self.name} must be one of {known}{more}, but got {_show(chosen)}")
        # In the order of the space, whatever the order of the override.
        ordered = [choice for choice in dict.fromkeys(allowed) if choice in chosen]
        ordered += [choice for choice in dict.fromkeys(chosen) if choice not in allowed]
        return dataclasses.replace(self, choices=tuple(ordered))

    def _fits(self, choice: object) -> bool:
        if self.least is not None:
            whole = isinstance(choice, builtins.int) and not isinstance(choice, bool)
            return whole and choice >= self.least  # type: ignore[operator]
        return self.open and isinstance(choice, str) and choice != ""

    def _items(self, value: object) -> tuple[ParamValue, ...]:
        """The items of one list, as an override gives it: a text, one item, or a list of them."""
        parts: Sequence[object] = value if isinstance(value, list | tuple) else (value,)
        if isinstance(value, str):
            parts = [part.strip() for part in value.split("/")] if value else []
            parts = list(parts) if self.item == "name" else [_parse_value(str(p)) for p in parts]
        kinds: dict[str, Any] = {"int": int, "float": int | float, "name": str}
        for part in parts:
            fits = isinstance(part, kinds[self.item]) and not isinstance(part, bool) and part != ""
            if fits and self.item != "name":
                fits = self.low <= part <= self.high  # type: ignore[operator]
            if not fits:
                raise SpaceError(f"{self.name} must be {self}, as {self._example}, not {value!r}")
        return tuple(parts)  # type: ignore[arg-type]

    def items(self, text: str) -> tuple[ParamValue, ...]:
        """The items of a list that a trial was given; none of an empty text."""
        return self._items(text) if text else ()


def listed_values(values: Iterable[ParamValue]) -> str:
    """The values, with commas."""
    return ", ".join(str(value) for value in values)


def condition_text(condition: Mapping[str, Sequence[ParamValue]]) -> str:
    """When a parameter exists, such as: optimizer sgd or muon, without preset.

    Args:
        condition: see `Parameter`.
    """
    parts = []
    for other, values in condition.items():
        if list(values) == [""]:
            parts.append(f"without {other}")
        elif list(values) == ["given"]:
            parts.append(f"with {other}")
        else:
            parts.append(f"{other} {' or '.join(value_text(value) for value in values)}")
    return ", ".join(parts)


def format_list(items: Iterable[ParamValue]) -> str:
    """A list as it is written in overrides, trials and tables: 512/256/128."""
    return "/".join(str(item) for item in items)


_LIKE_A_RANGE = re.compile(r"\s*([\d.]+(?:e-?\d+)?)\s*(?:-|:|to|\.\.\.)\s*([\d.]+(?:e-?\d+)?)\s*")


def _range_hint(text: str) -> str:
    ends = _LIKE_A_RANGE.fullmatch(text.lower())
    return f"; a range is written {ends[1]}..{ends[2]}" if ends else ""


def _show(override: object) -> str:
    if isinstance(override, tuple) and len(override) == 1:
        override = override[0]
    if isinstance(override, Range):
        return f"{override.low}..{override.high}"
    if isinstance(override, tuple):
        return ", ".join(str(choice) for choice in override)
    return repr(override)


def parse_override(text: str, *, option: str = "--set") -> tuple[str, Override]:
    """Reads `NAME=VALUE`, `NAME=LOW..HIGH` or `NAME=CHOICE,CHOICE` as written after `--set`.

    Args:
        option: after which it was written, for the errors.

    Raises:
        SpaceError: the text has no such form.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise SpaceError(f"{option} takes NAME=VALUE, for example lr=1e-3, but got {text!r}")
    low, dots, high = value.partition("..")
    if dots and "/" not in value and "\\" not in value:  # which is a path, or a list
        ends = (_parse_value(low), _parse_value(high))
        if not all(isinstance(end, int | float) for end in ends):
            raise SpaceError(
                f"{option} {name}: a range is two numbers, LOW..HIGH, but got {value!r}"
            )
        try:
            return name, Range(*ends)  # type: ignore[arg-type]
        except SpaceError as error:
            raise SpaceError(f"{option} {name}: {error}") from None
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
