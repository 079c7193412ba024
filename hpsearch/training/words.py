"""A training's configuration in words, as notes, cards and pages share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SAID = ("options", "seed")
"""Of these, 0 and "no" tell something: what is not given is not 0, but the default of its row."""


def configuration(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a `TrainConfig.to_dict()` says, in the order of its fields; what is off is left out."""
    rows = []
    for name, value in config.items():
        text = _value(value, said=name in _SAID)
        if text:
            rows.append((name.replace("_", " "), text))
    return rows


def _value(value: Any, *, said: bool = False) -> str:
    """A value in words.

    Args:
        said: in words, too, where it is off; but an empty text or list has no words.
    """
    if isinstance(value, Mapping):
        parts = ((str(key), _value(item, said=said or key in _SAID)) for key, item in value.items())
        return ", ".join(text if key == "name" else f"{key} {text}" for key, text in parts if text)
    if isinstance(value, list | tuple):
        return "/".join(_value(item, said=True) for item in value)
    if value is None or (not said and value in (0, False, "none")):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
