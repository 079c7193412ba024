"""Checks of single values, and what all configurations have in common: plain JSON, there and back.

This is the bottom layer: it imports nothing of hpsearch but the errors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Self, TypeVar

from hpsearch.errors import ConfigError

Option = bool | int | float | str | tuple[int | float | str, ...]
Options = Mapping[str, Option]
Row = TypeVar("Row")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raises `ConfigError` about `value`, the setting called `name`, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name} must be {expected}, but is {value!r}")


def check_number(name: str, value: object, *, low: float, high: float = math.inf) -> None:
    """Raises `ConfigError` unless `value` is a finite number between `low` and `high`, both
    included.
    """
    bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number can be larger than any float: that is not finite either.
    fits = is_number and low <= value <= high and abs(value) <= sys.float_info.max  # type: ignore[operator, arg-type]
    require(fits, name, value, f"a finite number {bounds}")


def check_int(name: str, value: object, *, low: int) -> None:
    """Raises `ConfigError` unless `value` is a whole number of at least `low`."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    require(is_int and value >= low, name, value, f"a whole number of at least {low}")  # type: ignore[operator]


def check_bool(name: str, value: object) -> None:
    """Raises `ConfigError` unless `value` is true or false."""
    require(isinstance(value, bool), name, value, "true or false")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises `ConfigError` unless `value` is one of `choices`."""
    fits = isinstance(value, str) and value in choices
    require(fits, name, value, f"one of {', '.join(choices)}")


def look_up(what: str, name: str, rows: Mapping[str, Row], *, also: tuple[str, ...] = ()) -> Row:
    """The row of a table that is called `name`.

    Args:
        what: the table is of, for the error.
        also: names that are known, but are no rows.

    Raises:
        ConfigError: there is none.
    """
    if name not in rows:
        raise ConfigError(f"unknown {what} {name!r}; known: {', '.join([*rows, *also])}")
    return rows[name]


def check_name(name: str, value: object) -> None:
    """Raises `ConfigError` unless `value` is a text that is not empty."""
    require(isinstance(value, str) and value != "", name, value, "a name")


def copy_options(config: object, field: str) -> None:
    """Puts a copy in the place of a frozen dataclass's mapping of options, with tuples for lists,
    as JSON gives them.

    Raises:
        ConfigError: it is no such mapping, or an option is not a finite number, a text, true or
            false, or a flat list of these.
    """
    value = getattr(config, field)
    require(isinstance(value, Mapping), field, value, "a mapping of names to values")
    frozen: dict[str, Option] = {}
    for key, item in value.items():
        option = tuple(item) if isinstance(item, list | tuple) else item
        for scalar in option if isinstance(option, tuple) else (option,):
            require(
                isinstance(scalar, bool | int | float | str),
                f"{field}[{key!r}]",
                item,
                "a number, a string, true or false, or a flat list of these",
            )
            if isinstance(scalar, float):
                require(math.isfinite(scalar), f"{field}[{key!r}]", item, "finite")
        frozen[str(key)] = option
    object.__setattr__(config, field, frozen)


class JsonConfig:
    """`to_dict` / `from_dict` for frozen dataclasses: exact JSON round trip."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types; `from_dict` gives it back, equal."""
        return {
            field.name: _to_json(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Builds the configuration from `to_dict`'s result.

        Raises:
            ConfigError: an unknown or missing field, or a value out of range.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"{cls.__name__} must be read from a mapping, but got {data!r}")
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - set(fields))
        if unknown:
            raise ConfigError(
                f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(fields)}"
            )
        hints = typing.get_type_hints(cls)
        values = {name: _from_json(hints[name], value) for name, value in data.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from None


def _to_json(value: Any) -> Any:
    if isinstance(value, JsonConfig):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(hint: Any, value: Any) -> Any:
    candidates = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for candidate in candidates:
        if (
            isinstance(candidate, type)
            and issubclass(candidate, JsonConfig)
            and isinstance(value, Mapping)
        ):
            return candidate.from_dict(value)
    if float in candidates and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # the field's own check refuses it
            return float(value)
    return tuple(value) if isinstance(value, list) else value
