"""torchvision's classification models as staged models, with our head."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsearch.checks import JsonConfig, check_choice
from hpsearch.data.dataset import ImageShape
from hpsearch.families._architectures import model_names, patch_grid
from hpsearch.families._heads import check_widths, make_head
from hpsearch.families._stages import POOLS, feature_count, stage_names, take_apart
from hpsearch.families._stems import STEMS
from hpsearch.training.model import StagedModel

__all__ = [
    "ZooOptions",
    "adapt_published",
    "build_zoo",
    "model_names",
    "stage_names",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZooOptions(JsonConfig):
    """What all models of torchvision have in common.

    Attributes:
        head: units of the hidden layers before the last one; empty: the head is linear.
        pool: how the head sees the last map, one of `POOLS`.
        stem: one of `STEMS`.
    """

    family: ClassVar[str]

    head: tuple[int, ...] = ()
    pool: str = "avg"
    stem: str = "standard"

    def __post_init__(self) -> None:
        check_widths(f"{self.family}: head", self.head)
        check_choice(f"{self.family}: pool", self.pool, POOLS)
        check_choice(f"{self.family}: stem", self.stem, STEMS)


def build_zoo(name: str, options: ZooOptions, shape: ImageShape, n_classes: int) -> StagedModel:
    """The model of torchvision called `name`, with initial weights, its last layer replaced by a
    head of ours; the others keep their published names in `published`.

    Linear layers in front of the last one are stages of their own, fc1 and on; the pooling is in
    the first of these, or else in the head. Every dropout between the pooling and the logits is
    scheduled, and there is one before each linear layer of the head.

    Args:
        shape: of the model's input. For gray images the first convolution has one channel.

    Raises:
        InfeasibleError: the images are too small for the model, or the model has no such stem or
            pool.
        ConfigError: an unknown model.
    """
    features = feature_count(name, shape, stem=options.stem, pool=options.pool)
    parts = take_apart(name, shape, stem=options.stem, pool=options.pool)
    head = nn.Sequential(*parts.head, *make_head(features, options.head, n_classes))
    return StagedModel({**parts.stages, "head": head}, published=parts.published)


# How names in older files of published weights became those of today.
_RENAMED = (
    (re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def adapt_published(name: str, state: Mapping[str, Tensor], shape: ImageShape) -> dict[str, Tensor]:
    """Published weights as the model called `name` takes them, for images of `shape`.

    Names that older files have become those of today, and the positions of a ViT's patches are
    interpolated to as many patches as the images have, as by torchvision's
    `interpolate_embeddings`, which does so for square images.

    Args:
        name: a model of torchvision.
        state: names and tensors, as in the file.
        shape: of the model's input, no smaller than a patch.
    """
    adapted: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for old, new in _RENAMED:
            key = old.sub(new, key)
        adapted[key] = tensor
    positions, patches = "encoder.pos_embedding", adapted.get("conv_proj.weight")
    if positions in adapted and patches is not None:
        grid = patch_grid(tuple(patches.shape[2:]), shape)
        adapted[positions] = _interpolated(adapted[positions], grid)
    return adapted


def _interpolated(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (1, 1 + patches, features) for a grid of (height, width) patches; those published
    are for a square, and the first is the class token's.
    """
    token, patches = positions[:, :1], positions[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if (side, side) == grid:
        return positions
    maps = patches.transpose(1, 2).reshape(1, patches.shape[2], side, side)
    maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=True)
    return torch.cat([token, maps.flatten(2).transpose(1, 2)], dim=1)
