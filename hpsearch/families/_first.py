"""Configurations that a user wants tried first, completed to what a family's space asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import HpsearchError, SpaceError
from hpsearch.families._family_space import (
    does_not_exist,
    families_with,
    own_overrides,
    space_of,
    suggestion_of,
    whole_space,
)
from hpsearch.families._known_good import default_params, distinct
from hpsearch.families._parameter import Override, Parameter, ParamValue, listed_values
from hpsearch.families._space import Explorer
from hpsearch.names import family_label

_WAY_OUT = "--no-first leaves out all of first"

First = Sequence[Mapping[str, ParamValue | list[Any]]]
"""By name of a parameter one value; "resnet.lr" is that of one family."""


def check_first(
    names: tuple[str, ...], shape: ImageShape, overrides: Mapping[str, Override], first: First
) -> None:
    """Checks configurations to try first against the spaces of the families called `names`.

    Raises:
        SpaceError: a parameter that none of them has, or a value that one of them cannot have
            under `overrides`.
    """
    for number, configuration in enumerate(first, start=1):
        for key in configuration:
            try:
                families_with(key, names, shape)
            except SpaceError as error:
                raise SpaceError(f"first, configuration {number}: {error}; {_WAY_OUT}") from None
    for name in names:
        first_params(name, shape, overrides, first)


def first_params(
    name: str,
    shape: ImageShape,
    overrides: Mapping[str, Override] | None = None,
    first: First = (),
) -> list[dict[str, ParamValue]]:
    """What a family tries first: the configurations of `first` that give at least one of its
    parameters, each completed, then its `default_params`; none of them twice.

    Raises:
        SpaceError: a value that the family cannot have under `overrides`.
    """
    params: list[dict[str, ParamValue]] = []
    for number, configuration in enumerate(first, start=1):
        try:
            given = _given(name, shape, configuration)
            if given:
                params.append(_completed(name, shape, overrides or {}, given))
        except HpsearchError as error:
            raise SpaceError(
                f"first, configuration {number} for {family_label(name)}: {error}; {_WAY_OUT}"
            ) from None
    return distinct([*params, *default_params(name, shape, overrides)])


def _given(
    name: str, shape: ImageShape, configuration: Mapping[str, ParamValue | list[Any]]
) -> dict[str, ParamValue]:
    """The values of a configuration that are meant for the family, as trials have them."""
    own = own_overrides(name, configuration)
    whole = whole_space(name, shape)
    return {key: _only_value(whole[key].narrowed(own[key])) for key in own if key in whole}


def _only_value(row: Parameter) -> ParamValue:
    if row.kind == "categorical":
        return row.choices[0]
    return int(row.low) if row.kind == "int" else row.low


def _completed(
    name: str,
    shape: ImageShape,
    overrides: Mapping[str, Override],
    given: Mapping[str, ParamValue],
) -> dict[str, ParamValue]:
    """A value for exactly those parameters that the space asks for under `overrides`: what is
    `given`, and else that of the known-good configuration that has to be changed least for it.
    """
    label = family_label(name)
    fixed = {f"{label}.{key}": value for key, value in given.items()}
    near = default_params(name, shape, {**overrides, **fixed})
    params = next((row for row in near if given.keys() <= row.keys()), near[0])
    # So far it is of the space that the given values narrow; the trial will be asked for another.
    trial = Explorer({**params, **given})
    suggestion_of(name, trial, shape, overrides)
    not_asked = {key: value for key, value in given.items() if key not in trial.asked}
    if not_asked:
        _check_off(name, shape, overrides, not_asked)
    for key, row in trial.asked.items():
        if key in given and trial.answers[key] != given[key]:
            # Not str(row): an override could choose more than what is searched.
            choices = f"one of {listed_values(row.choices)}"
            allowed = choices if row.kind == "categorical" else row
            raise SpaceError(f"{key} must be {allowed}, but is {given[key]!r}")
    return trial.params


def _check_off(
    name: str,
    shape: ImageShape,
    overrides: Mapping[str, Override],
    given: Mapping[str, ParamValue],
) -> None:
    """Refuses values for what trials are not asked for, unless they all have them anyway."""
    rows = {row.name: row for row in space_of(name, shape, overrides, everything=True)}
    for key, value in given.items():
        row = rows.get(key)
        if row is None or row.searched:
            raise does_not_exist(key, whole_space(name, shape)[key])
        if row.off != value:
            usual = "not given in any trial" if row.off == "" else f"{row.off!r} in every trial"
            raise SpaceError(
                f"{key} must not be {value!r}: it is not searched, and {usual}; leave it out, or "
                "have an override search it"
            )
