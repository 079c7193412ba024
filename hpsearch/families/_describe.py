"""A family's space and models as plain documents, for tables and for machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.families._configs import known_config
from hpsearch.families._family_space import check_overrides, space_of
from hpsearch.families._known_good import default_params, known_good
from hpsearch.families._model import build_model
from hpsearch.families._parameter import Override, Parameter, ParamValue
from hpsearch.families._recipe import TABLES
from hpsearch.families._registry import family_names, get_family
from hpsearch.training.layers import layer_table, totals


def describe_families() -> list[dict[str, Any]]:
    """Name, summary and presets of each family, and whether there are published weights."""
    return [
        {
            "family": name,
            "summary": family.summary,
            "presets": list(family.presets),
            "published_weights": family.published is not None,
        }
        for name, family in ((name, get_family(name)) for name in family_names())
    ]


def describe_space(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> list[dict[str, Any]]:
    """The parameters of a family's space, those that are searched first.

    Returns:
        For each `name`, `searched`, `kind`, `range` (all that is searched, in words), `low`,
        `high`, `scale`, `choices`, `also` (further choices that an override can give), `condition`
        (see `Parameter`), `default` (what is tried first, or its value where it is not searched),
        `help`, and `meanings`, of those choices that are rows of a table.
    """
    # Of the settings known to work, the first that have the parameter count.
    good = [*default_params(name, shape, overrides), *known_good(name, shape)]
    known = {key: value for params in reversed(good) for key, value in params.items()}
    rows = space_of(name, shape, overrides, everything=True)
    documents = [_parameter_document(row, known.get(row.name)) for row in rows]
    return sorted(documents, key=lambda row: not row["searched"])


def _parameter_document(row: Parameter, known: ParamValue | None) -> dict[str, Any]:
    is_number = row.kind in ("float", "int")
    first = row.off
    if row.searched:
        first = row.middle if known is None else row.nearest(known)
    return {
        "name": row.name,
        "searched": row.searched,
        "kind": row.kind,
        "range": str(row),
        "low": row.low if is_number else None,
        "high": row.high if is_number else None,
        "scale": ("log" if row.log else "linear") if is_number else None,
        "choices": list(row.choices),
        "also": [str(choice) for choice in row.also],
        "condition": {other: list(values) for other, values in row.condition.items()},
        "default": first,
        "help": row.help,
        "meanings": {
            known_row.name: known_row.help
            for known_row in TABLES.get(row.name, ())
            if known_row.name in (*row.choices, *row.also)
        },
    }


def default_config(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> TrainConfig:
    """The first of the family's settings known to work, as a configuration.

    Raises:
        SpaceError: an override does not fit.
    """
    check_overrides((name,), shape, overrides or {})
    return known_config(name, shape, epochs=1, seed=0, precision="fp32", overrides=overrides)


def describe_model(config: TrainConfig, shape: ImageShape, n_classes: int) -> dict[str, Any]:
    """The layers of a configuration's model, without making its weights.

    Args:
        shape: of the data's images.

    Raises:
        ConfigError: as `build_model` and `StagedModel.freeze`.
        InfeasibleError: as `build_model`.
    """
    given = input_shape(config.input, shape)
    with torch.device("meta"):
        model = build_model(config, given, n_classes)
    rows = layer_table(model.freeze(config.freeze_depth, config.freeze), given)
    sums = totals(rows)
    return {
        "family": config.family,
        "options": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in config.options.items()
        },
        "input": dataclasses.asdict(given),
        "classes": n_classes,
        "stages": list(model.stage_names),
        "layers": [{**dataclasses.asdict(row), "output": list(row.output)} for row in rows],
        "parameters": sums.parameters,
        "trained": sums.trained,
        "frozen": sums.frozen,
        "macs": sums.macs,
    }
