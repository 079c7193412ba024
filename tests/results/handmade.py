"""Exports made by hand, of models whose every prediction can be told without running them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from hpsearch.config import Precision, TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.families import build_model
from hpsearch.results.folder import CONFIG, FORMAT, MODEL
from hpsearch.training.checkpoint import Checkpoint, save_checkpoint

COLOURS = ("red", "green", "blue")


def colour_checkpoint(side: int = 4, *, precision: Precision = "fp32") -> Checkpoint:
    """A logistic regression that says which colour an image has most of."""
    config = TrainConfig(family="logistic", precision=precision)
    preprocessing = Preprocessing(
        height=side, width=side, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    model = build_model(config, ImageShape(side, side, 3), 3)
    state = model.state_dict()
    for name, tensor in state.items():
        flat = np.zeros(tensor.shape, dtype=np.float32)
        if tensor.ndim == 2:  # (classes, channels * side * side)
            flat = np.repeat(np.eye(3, dtype=np.float32), side * side, axis=1) * 8 / side**2
        state[name] = torch.from_numpy(flat)
    return Checkpoint(
        state=state,
        config=config,
        classes=COLOURS,
        preprocessing=preprocessing,
        metrics={},
        origin={"search": "colours", "trial": "logistic-0", "data_fingerprint": "none"},
    )


def write_export(folder: Path, checkpoint: Checkpoint, *, fit: str = "crop") -> Path:
    """As much of an export as it takes to predict with it."""
    folder.mkdir(parents=True)
    save_checkpoint(folder / MODEL, checkpoint)
    shape = checkpoint.preprocessing.shape
    images = {"height": shape.height, "width": shape.width, "channels": shape.channels, "fit": fit}
    document = {"format": FORMAT, "classes": list(checkpoint.classes), "images": images}
    document["config"] = checkpoint.config.to_dict()
    document["origin"] = dict(checkpoint.origin)
    (folder / CONFIG).write_text(json.dumps(document))
    return folder


def plain(colour: str, height: int = 4, width: int = 4) -> np.ndarray:
    """An image of one colour: uint8 (height, width, 3)."""
    image = np.full((height, width, 3), 20, dtype=np.uint8)
    image[..., COLOURS.index(colour)] = 220
    return image
