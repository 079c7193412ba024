"""Settings that only some rows of a table have, such as the momentum of SGD."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal

from hpsearch.checks import Option, Options
from hpsearch.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """What one setting may be.

    Attributes:
        default: where it is not given; () for a list.
        kind: a number, a whole number, yes or no (True or False), or a list of numbers.
        low, high: the range worth searching, both included; of each number in a list.
        limits: the least and the greatest number allowed, where that is more than the range.
        log: searched on a log scale.
        whole, rising, required: the numbers of the list are whole, each is greater than the
            one before it, there must be one.
        searched: a search varies it without being told to.
    """

    help: str
    default: Option
    kind: Literal["float", "int", "flag", "list"] = "float"
    low: float = 0.0
    high: float = 1.0
    limits: tuple[float, float] | None = None
    log: bool = False
    whole: bool = False
    rising: bool = False
    required: bool = False
    searched: bool = False

    def read(self, name: str, value: Option) -> Option:
        """`value` as a float, int, bool or tuple of floats or ints.

        Raises:
            ConfigError: it is of another kind or out of the limits.
        """
        if self.kind == "flag":
            fits = isinstance(value, bool)
        elif self.kind == "list":
            fits = isinstance(value, tuple) and all(self._is_number(item) for item in value)
            fits = fits and (not self.rising or self._rises(value))
        else:
            fits = self._is_number(value)
        if not fits:
            raise ConfigError(f"{name} must be {self._expected()}, but is {value!r}")
        if isinstance(value, tuple):
            return value if self.whole else tuple(float(item) for item in value)
        return float(value) if self.kind == "float" else value

    def _is_number(self, value: object) -> bool:
        low, high = self.limits or (self.low, self.high)
        kinds = int if self.whole or self.kind == "int" else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return low <= value <= high

    @staticmethod
    def _rises(values: Any) -> bool:
        return all(first < second for first, second in itertools.pairwise(values))

    def _expected(self) -> str:
        if self.kind == "flag":
            return "true or false"
        low, high = self.limits or (self.low, self.high)
        whole = "whole " if self.whole or self.kind == "int" else ""
        rising = "rising " if self.rising else ""
        what = f"a list of {rising}{whole}numbers" if self.kind == "list" else f"a {whole}number"
        return f"{what} between {low:g} and {high:g}"


def read_options(owner: str, rows: Mapping[str, OptionInfo], given: Options) -> dict[str, Any]:
    """A value for each option in `rows`: the given one, else the default.

    Args:
        owner: whose options they are, as errors name it, such as "optimizer 'sgd'".

    Raises:
        ConfigError: an unknown option, one that is required and missing, or a value that one may
            not have.
    """
    for name in given:
        if name not in rows:
            has = f"its options: {', '.join(rows)}" if rows else "it has no options"
            raise ConfigError(f"{owner} has no option {name!r}; {has}")
    values: dict[str, Any] = {}
    for name, row in rows.items():
        value = row.read(f"{owner}: {name}", given[name]) if name in given else row.default
        if row.required and value == ():
            raise ConfigError(f"{owner} needs the option {name}: {row.help}")
        values[name] = value
    return values
