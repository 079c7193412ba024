"""The part of the space that families of torchvision's models share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hpsearch.data.augment import augmentation
from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError
from hpsearch.families._family import NO_WEIGHTS, Default, Start, Suggestion, by_shape
from hpsearch.families._parameter import ParamValue
from hpsearch.families._published import IMAGENET
from hpsearch.families._recipe import RECIPES, suggest_training
from hpsearch.families._space import Suggester
from hpsearch.families._stages import POOLS, feature_count, fits, stem_names
from hpsearch.families._stems import STEMS
from hpsearch.families._zoo import ZooOptions, stage_names

SMALL = 48
"""Images with a shorter side below this many pixels are small: a standard stem leaves little of
them, and what was learnt from photographs of 224 pixels helps little.
"""

AUGMENT = ("hflip", "rotate", "resized_crop", "jitter")
"""What is searched: good for photographs."""

_AUTO = "auto"


def is_small(shape: ImageShape) -> bool:
    """Whether the shorter side of images is below `SMALL`."""
    return min(shape.height, shape.width) < SMALL


def usual_weights(shape: ImageShape) -> str:
    """What training starts from by default."""
    return NO_WEIGHTS if is_small(shape) else IMAGENET


def ask_architecture(s: Suggester, start: Start, model: str) -> dict[str, Any]:
    """Asks for the options of `ZooOptions`, for a model of torchvision; none is searched by
    default.

    Raises:
        InfeasibleError: images too small for the model, a stem or pool that it does not have, or a
            stem that published weights do not fit.
    """
    head = s.numbers("head", help="units of the head's hidden layers; without, it is linear")
    pool = s.categorical("pool", POOLS, off="avg", help="of the last map; flat: the head sees all")
    stem = s.categorical(
        "stem",
        (_AUTO, *STEMS),
        off=_AUTO,
        help="first layers: as published; small or stride1 for small images, the second with the "
        "published kernel; auto: by the size of the images",
    )
    if stem == _AUTO:
        stem = usual_stem(model, start)
    feature_count(model, _input_shape(start), stem=stem, pool=pool)
    fitting = stem_names(model, published=True)
    if start.weights is not None and stem not in fitting:
        raise InfeasibleError(
            f"stem: published weights of {model} do not fit the kernel of the {stem} stem; use "
            f"{' or '.join(fitting)}, or set weights={NO_WEIGHTS}"
        )
    return {"head": head, "pool": pool, "stem": stem}


def usual_stem(model: str, start: Start) -> str:
    """One for small images where they are small, or too small for the published stem; of these
    one that weights fit, where there are any.
    """
    shape = _input_shape(start)
    stem = "small" if start.weights is None else "stride1"
    standard = not is_small(shape) and fits(model, shape, stem="standard")
    return "standard" if standard or stem not in stem_names(model) else stem


def _input_shape(start: Start) -> ImageShape:
    """Published weights want squares, of 224 pixels or more unless a size is asked for."""
    if start.weights is None or start.options is not None:
        return start.shape
    side = start.image_size or 224
    return ImageShape(side, side, 3)


def suggest_zoo(
    s: Suggester, start: Start, options: ZooOptions, model: str, models: Sequence[str]
) -> Suggestion:
    """Asks for how a model of torchvision is trained.

    Args:
        models: all that the search can choose.
    """
    return suggest_training(
        s,
        start,
        options=dataclasses.asdict(options),
        stages=len(stage_names(model)),
        most_stages=max(len(stage_names(name)) for name in models),
        published=model,
        dropout=True,
        augment=AUGMENT,
        label_smoothing=True,
    )


def zoo_defaults(
    scratch: tuple[float, float] = (1e-3, 0.05),
    pretrained: tuple[float, float] = (2e-4, 0.01),
    **values: ParamValue,
) -> tuple[Default, ...]:
    """Settings known to work, one for each of `RECIPES`, with weights and from scratch.

    Args:
        scratch: their learning rates from initial weights of no training.
        pretrained: and from published weights.
        values: of the family's own parameters.
    """
    strengths: dict[str, ParamValue] = {name: augmentation(name).good for name in AUGMENT}
    return tuple(
        {
            **recipe,
            **strengths,
            # Gray images are rarely photographs: digits, letters and scans are not to be flipped.
            "hflip": by_shape(lambda shape: shape.channels == 3, strengths["hflip"], 0.0),
            "weights": weights,
            "lr": lr,
            "freeze_depth": 0,
            **values,
        }
        for weights, rates in ((IMAGENET, pretrained), (NO_WEIGHTS, scratch))
        for recipe, lr in zip(RECIPES, rates, strict=True)
    )
