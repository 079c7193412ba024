"""The settings of a family that are known to work, moved into what is searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError
from hpsearch.families._family import NO_WEIGHTS
from hpsearch.families._family_space import suggestion_of
from hpsearch.families._parameter import Override, ParamValue
from hpsearch.families._registry import get_family
from hpsearch.families._space import first_feasible


def known_good(name: str, shape: ImageShape) -> list[dict[str, ParamValue]]:
    """The family's settings known to work for images of `shape`, as the family's file has them."""
    return [
        {key: value(shape) if callable(value) else value for key, value in default.items()}
        for default in get_family(name).defaults
    ]


def default_params(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> list[dict[str, ParamValue]]:
    """The family's settings known to work, moved into what `shape` and `overrides` allow; those
    that had to be moved least come first. Those meant for training from weights are left out where
    it is from scratch, and the other way round, unless all are.

    Raises:
        InfeasibleError: none of them, nor what is near to it, can be trained on such images.
    """
    settled: list[tuple[bool, int, dict[str, ParamValue]]] = []
    errors: list[InfeasibleError] = []
    for default in known_good(name, shape):
        try:
            explorer, suggestion = first_feasible(
                lambda trial: suggestion_of(name, trial, shape, overrides), default
            )
        except InfeasibleError as error:
            errors.append(error)
            continue
        from_scratch = default.get("weights", NO_WEIGHTS) == NO_WEIGHTS
        meant = "weights" not in default or from_scratch == (suggestion.weights is None)
        moved = sum(default.get(key) != value for key, value in explorer.params.items())
        settled.append((meant, moved, explorer.params))
    if not settled:
        raise errors[0]
    settled.sort(key=lambda row: row[1])
    meant_ones = [params for meant, _, params in settled if meant]
    return distinct(meant_ones or [params for _, _, params in settled])


def distinct(rows: Sequence[dict[str, ParamValue]]) -> list[dict[str, ParamValue]]:
    """The rows in their order, none of them twice."""
    return [row for number, row in enumerate(rows) if row not in rows[:number]]
