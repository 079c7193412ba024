"""A training's configuration in words, as notes, cards and pages share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def configuration(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a `TrainConfig.to_dict()` says, in the order of its fields; what is off is left out."""
    rows = []
    for name, value in config.items():
        text = _value(value)
        if text:
            rows.append((name.replace("_", " "), text))
    return rows


def _value(value: Any) -> str:
    if value in (None, 0, False, "", "none") or value in ([], {}):
        return ""
    if isinstance(value, Mapping):
        parts = ((str(key), _value(item)) for key, item in value.items())
        return ", ".join(text if key == "name" else f"{key} {text}" for key, text in parts if text)
    if isinstance(value, list | tuple):
        return "/".join(_value(item) or str(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
