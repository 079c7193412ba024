"""The space of a family by its name: its parameters under overrides, and what these may name."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import SpaceError
from hpsearch.families._family import Family, Suggestion
from hpsearch.families._parameter import Override, Parameter, condition_text
from hpsearch.families._registry import get_family
from hpsearch.families._space import Explorer, Suggester, TrialLike, explore
from hpsearch.families._unknown import unknown_parameter
from hpsearch.names import family_label


def own_overrides(name: str, overrides: Mapping[str, Override] | None) -> dict[str, Override]:
    """The overrides that are meant for one family: those by the name of a parameter, and those
    by family and parameter, as resnet.lr, which come before them.
    """
    plain = {key: value for key, value in (overrides or {}).items() if "." not in key}
    prefix = f"{family_label(name)}."
    mine = {
        key.removeprefix(prefix): value
        for key, value in (overrides or {}).items()
        if key.startswith(prefix)
    }
    return plain | mine


def suggestion_of(
    name: str,
    trial: TrialLike | Explorer,
    shape: ImageShape,
    overrides: Mapping[str, Override] | None,
) -> Suggestion:
    """What the space of a family makes of the values of `trial`, for images of `shape`.

    Raises:
        InfeasibleError: it cannot be trained on such images.
    """
    suggester = Suggester(trial, own_overrides(name, overrides), family=family_label(name))
    return get_family(name).suggest(suggester, shape)


def space_of(
    name: str,
    shape: ImageShape,
    overrides: Mapping[str, Override] | None = None,
    *,
    everything: bool = False,
) -> tuple[Parameter, ...]:
    """The parameters of a family's space for images of `shape`, under `overrides`.

    Args:
        everything: with those that are not searched unless an override says so.

    Raises:
        InfeasibleError: nothing in it can be trained on such images.
    """
    return explore(
        lambda trial: suggestion_of(name, trial, shape, overrides), everything=everything
    )


def whole_space(name: str, shape: ImageShape) -> Mapping[str, Parameter]:
    """All parameters of a family by name, also those that only an override has searched."""
    return _whole_space(name, get_family(name), shape)


@functools.lru_cache(maxsize=32)
def _whole_space(name: str, family: Family, shape: ImageShape) -> dict[str, Parameter]:
    # `family` is in the key, as a user's file can change.
    return {row.name: row for row in space_of(name, shape, everything=True)}


def check_overrides(
    families: tuple[str, ...], shape: ImageShape, overrides: Mapping[str, Override]
) -> None:
    """Checks each override against the spaces of `families`; a name may be in some of them only.

    Raises:
        SpaceError: a name that none of the spaces has, a value outside of a range, or a
            parameter that the other overrides take away.
    """
    if not overrides:
        return
    asked = {name: {row.name for row in space_of(name, shape, overrides)} for name in families}
    for key in overrides:
        rows = families_with(key, families, shape)
        if not any(row.name in asked[family] for family, row in rows.items()):
            raise does_not_exist(key, next(iter(rows.values())))


def families_with(key: str, families: tuple[str, ...], shape: ImageShape) -> dict[str, Parameter]:
    """Those of `families` that have the parameter `key`, such as lr, or resnet.lr of that family
    only; each with its row in the family's whole space.

    Raises:
        SpaceError: none of them has it.
    """
    labels = {family_label(name): name for name in families}
    label, dot, name = key.rpartition(".")
    if dot and label not in labels:
        raise SpaceError(f"{key}: no family {label!r} is searched, but {', '.join(labels)}")
    meant = (labels[label],) if dot else families
    spaces = {family: whole_space(family, shape) for family in meant}
    rows = {family: space[name] for family, space in spaces.items() if name in space}
    if not rows:
        raise unknown_parameter(key, spaces)
    return rows


def does_not_exist(key: str, row: Parameter) -> SpaceError:
    """The error about a parameter, of the whole space's `row`, that other values take away."""
    needs = condition_text(row.condition)
    return SpaceError(
        f"parameter {key!r} does not exist under the other values that are set; "
        f"leave it out{f', or set what it needs: {needs}' if needs else ''}"
    )
