"""Errors about names that no family or space has, with the one that may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from hpsearch.errors import SpaceError
from hpsearch.names import family_label

_OTHERWISE = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "bs": "batch_size",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "decay": "weight_decay",
    "n_layers": "layers",
    "num_layers": "layers",
    "hidden_layers": "layers",
    "hidden_size": "widths",
    "filters": "channels",
    "p": "dropout",
    "dropout_rate": "dropout",
    "optim": "optimizer",
    "scheduler": "schedule",
    "lr_schedule": "schedule",
    "lr_scheduler": "schedule",
    "beta": "beta1",
    "size": "image_size",
    "flip": "hflip",
    "horizontal_flip": "hflip",
    "vertical_flip": "vflip",
    "rotation": "rotate",
    "color_jitter": "jitter",
    "smoothing": "label_smoothing",
    "pretrained": "weights",
    "clip": "grad_clip",
    "gradient_clip": "grad_clip",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
}
"""What parameters are called elsewhere, and here."""


def meant_parameter(name: str, known: Collection[str]) -> str:
    """The one of the parameters `known` that someone may have meant by `name`; empty: none."""
    plain = name.lower().replace("-", "_")
    for same in (plain, _OTHERWISE.get(plain, "")):
        if same in known:
            return same
    return next(iter(difflib.get_close_matches(plain, known, n=1)), "")


def unknown_parameter(key: str, spaces: Mapping[str, Collection[str]]) -> SpaceError:
    """The error about a parameter that none of the spaces has.

    Args:
        key: as it was given, such as speed or cnn.speed.
        spaces: the names of the parameters, by family.
    """
    known = sorted({name for space in spaces.values() for name in space})
    meant = meant_parameter(key.rpartition(".")[2], known)
    if meant:
        lists = " or ".join(f"'hpsearch space {family}'" for family in spaces)
        return SpaceError(f"unknown parameter {key!r}; did you mean {meant!r}? {lists} lists all")
    labels = ", ".join(map(family_label, spaces))
    have = "has" if len(spaces) == 1 else "have"
    return SpaceError(f"unknown parameter {key!r}; {labels} {have} {', '.join(known)}")


def unknown_family(name: str, known: Collection[str]) -> SpaceError:
    """The error about a family that there is not."""
    meant = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {meant[0]!r}? " if meant else ""
    return SpaceError(
        f"unknown family {name!r}; {hint}known: {', '.join(known)}; a file of your own ends in .py"
    )
