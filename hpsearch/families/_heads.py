"""Heads: fully connected layers, and the activations between them.

To add an activation, append a row to `ACTIVATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hpsearch.checks import check_choice, check_int
from hpsearch.errors import ConfigError
from hpsearch.training.dropout import ScheduledDropout

ACTIVATIONS: dict[str, Callable[[], nn.Module] | None] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "none": None,
}
"""By name; None leaves the layers linear, with no module between them."""


def activation_layers(name: str) -> list[nn.Module]:
    """The activation called `name` as a list of one new module, or of none for "none".

    Raises:
        ConfigError: an unknown name.
    """
    check_activation("activation", name)
    make = ACTIVATIONS[name]
    return [] if make is None else [make()]


def check_activation(name: str, value: object) -> None:
    """Raises `ConfigError` unless `value`, the option called `name`, is a known activation."""
    check_choice(name, value, ACTIVATIONS)


def check_widths(name: str, value: object) -> None:
    """Raises `ConfigError` unless `value`, the option called `name`, is a list of numbers of
    units, which may be empty.
    """
    if not isinstance(value, tuple):
        raise ConfigError(f"{name} must be a list of whole numbers, but is {value!r}")
    for width in value:
        check_int(name, width, low=1)


def make_head(
    features: int,
    hidden: tuple[int, ...],
    n_classes: int,
    *,
    activation: str = "relu",
) -> list[nn.Module]:
    """Fully connected layers from flat features to logits: for `hidden` (500, 64), dropout,
    Linear(features, 500), activation, dropout, Linear(500, 64), activation, dropout,
    Linear(64, n_classes).

    Args:
        features: length of the input.
        hidden: units of the layers before the last; empty: one linear layer.
        activation: after each hidden layer, a row of `ACTIVATIONS`.

    Shapes:
        input float32 (n, features), output (n, n_classes).

    Raises:
        ConfigError: an unknown activation, or a width that is no number of units.
    """
    check_widths("head", hidden)
    check_activation("activation", activation)
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [ScheduledDropout(), nn.Linear(features, width)]
        layers += activation_layers(activation)
        features = width
    return [*layers, ScheduledDropout(), nn.Linear(features, n_classes)]
