"""A family's space and models as plain documents, for tables and for machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hpsearch import families
from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.families._parameter import Override, Parameter, ParamValue
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
        for name in families.family_names()
        for family in (families.get_family(name),)
    ]


def describe_space(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> list[dict[str, Any]]:
    """The parameters of a family's space, those that are searched first.

    Returns:
        For each `name`, `searched`, `kind`, `low`, `high`, `scale`, `choices` (with `more` where an
        override can give others), `condition` (by another parameter the values under which it
        exists), `default` (what is tried first, or its value where it is not searched), `help`.
    """
    # Of the settings known to work, the first that have the parameter count.
    good = [*families.default_params(name, shape, overrides), *families.known_good(name, shape)]
    known = {key: value for params in reversed(good) for key, value in params.items()}
    rows = families.space_of(name, shape, overrides, everything=True)
    documents = [_parameter_document(row, rows, known.get(row.name)) for row in rows]
    return sorted(documents, key=lambda row: not row["searched"])


def _parameter_document(
    row: Parameter, rows: tuple[Parameter, ...], known: ParamValue | None
) -> dict[str, Any]:
    is_number = row.kind in ("float", "int")
    lists = {other.name for other in rows if other.kind == "list"}
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
        "condition": {
            other: ["given" if other in lists and value else value for value in values]
            for other, values in row.condition.items()
        },
        "default": first,
        "help": row.help,
    }


def condition_text(condition: Mapping[str, Sequence[Any]]) -> str:
    """When a parameter exists, such as: optimizer sgd or muon, without preset.

    Args:
        condition: by the name of another parameter the values under which it does (see
            `describe_space` and `Parameter`).
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


def value_text(value: Any) -> str:
    """A parameter's value; a dash where it is not given."""
    if value == "":
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def default_config(
    name: str, shape: ImageShape, overrides: Mapping[str, Override] | None = None
) -> TrainConfig:
    """The first of the family's settings known to work, as a configuration.

    Raises:
        SpaceError: an override does not fit.
    """
    families.check_overrides((name,), shape, overrides or {})
    return families.known_config(
        name, shape, epochs=1, seed=0, precision="fp32", overrides=overrides
    )


def describe_model(config: TrainConfig, shape: ImageShape, n_classes: int) -> dict[str, Any]:
    """The layers of a configuration's model, without making its weights.

    Args:
        shape: of the data's images.

    Raises:
        ConfigError, InfeasibleError: as `build_model`; there is nothing to train.
    """
    given = input_shape(config.input, shape)
    with torch.device("meta"):
        model = families.build_model(config, given, n_classes)
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
