"""What a family is, and the questions that all of them ask first: where the weights start from,
and how large the images are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from hpsearch.checks import Options
from hpsearch.config import (
    Balance,
    DropoutConfig,
    InputConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    WeightsConfig,
)
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.errors import InfeasibleError
from hpsearch.families._parameter import ParamValue
from hpsearch.families._published import IMAGENET, is_published
from hpsearch.families._space import Suggester
from hpsearch.families._weights import WeightsInfo, weights_info
from hpsearch.training.model import StagedModel

IMAGE_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
NO_WEIGHTS = "none"

Default = Mapping[str, ParamValue | Callable[[ImageShape], ParamValue]]
"""By name of a parameter one value. One that depends on the images is a function of their shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What a family's space decides of a `TrainConfig`, by the same names; the study decides the
    rest, and the epochs where they are 0.
    """

    options: Options
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    batch_size: int
    dropout: DropoutConfig = DropoutConfig()
    weights: WeightsConfig | None = None
    init: str = "default"
    input: InputConfig = InputConfig()
    augment: Mapping[str, float] = dataclasses.field(default_factory=dict)
    repeat: int = 1
    train_images: int = 0
    loss: LossConfig = LossConfig()
    label_smoothing: float = 0.0
    balance: Balance = "none"
    grad_clip: float = 0.0
    ema: float = 0.0
    epochs: int = 0
    freeze_depth: int = 0
    freeze: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A model family: each file of this folder that has no leading underscore defines one as
    `FAMILY`, and its name is the file's.

    Attributes:
        summary: one line for `--help` and tables.
        suggest: asks for the parameters, for images of a shape.
        build: (options, shape of the input, number of classes) -> an untrained model. It takes
            plain values, never a trial.
        defaults: settings known to work, tried first; each a value for every parameter that
            the space asks for under them. Values for parameters that it does not ask for are
            passed over; they serve where an override leads to these parameters.
        presets: by name of a network from the literature or a report, its options.
        published: (options) -> the model of torchvision whose published weights fit; None for a
            family without any.
    """

    summary: str
    suggest: Callable[[Suggester, ImageShape], Suggestion]
    build: Callable[[Options, ImageShape, int], StagedModel]
    defaults: tuple[Default, ...]
    presets: Mapping[str, Options] = dataclasses.field(default_factory=dict)
    published: Callable[[Options], str] | None = None


def by_shape(
    condition: Callable[[ImageShape], bool], then: ParamValue, other: ParamValue
) -> Callable[[ImageShape], ParamValue]:
    """For `Family.defaults`: a value for images whose shape has the `condition`, and another."""
    return lambda shape: then if condition(shape) else other


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What is known before a family asks for its own options.

    Attributes:
        family: what it is called in tables.
        shape: of the model's input. Where published weights decide it (they may depend on the
            options), that of the data until `suggest_training`.
        largest: the shape of the largest input that the search can have: ranges that depend on the
            size follow it, since a range must not depend on another parameter.
        data: the shape of the data's images.
        options: those of a preset, or of the export whose weights are used: then they are not
            asked for.
        weights: the source of the weights, or None.
        sources: all that `weights` can be in this search, None among them.
        info: what is known of a source that is a file or an export.
        image_size: the shorter side that was asked for, or 0.
    """

    family: str
    shape: ImageShape
    largest: ImageShape
    data: ImageShape
    options: Options | None
    weights: str | None
    sources: tuple[str | None, ...]
    info: WeightsInfo | None
    image_size: int


def ask_start(
    s: Suggester,
    shape: ImageShape,
    *,
    presets: Mapping[str, Options] | None = None,
    pretrained: str | None = None,
    transfers: bool = True,
) -> Start:
    """Asks where a model starts from: a preset, weights, and the size of the images. By default
    none of these is searched.

    Args:
        shape: of the data's images.
        pretrained: the default of `weights`, for a family with published ones: "imagenet" or
            "none". None: there are none, and only exports can be started from.
        transfers: False: the model is a head alone, which takes no weights over.

    Raises:
        InfeasibleError: a preset together with an export, which has options of its own.
        ConfigError: an export of another family.
        CheckpointError: weights that do not exist, or a file that holds none.
    """
    options: Options | None = None
    if presets:
        name = s.categorical("preset", tuple(presets), off="", help="a network known by name")
        options = presets[name] if name else None
    source = NO_WEIGHTS
    possible: tuple[str, ...] = (NO_WEIGHTS,)
    if transfers:
        source = s.categorical(
            "weights",
            (NO_WEIGHTS,) if pretrained is None else (IMAGENET, NO_WEIGHTS),
            open=True,
            off=pretrained or NO_WEIGHTS,
            help="what training starts from: "
            + ("" if pretrained is None else "imagenet or another name of torchvision's weights, ")
            + "an export of this family, or none",
        )
        possible = s.choices("weights")
    weights = None if source == NO_WEIGHTS else source
    info = None
    if weights is not None and (pretrained is None or not is_published(weights)):
        info = weights_info(weights, family=s.family, published=None)
        if info.options is not None and options is not None:
            raise InfeasibleError(
                f"the export {weights} has options of its own, so preset must be left out"
            )
        options = options if info.options is None else info.options
    image_size = s.number(
        "image_size",
        IMAGE_SIZES,
        least=1,
        off=0,
        help="shorter side of the images in pixels; 0: that of the data, or of the weights",
    )
    start = Start(
        family=s.family,
        shape=shape,
        largest=shape,
        data=shape,
        options=options,
        weights=weights,
        sources=tuple(None if name == NO_WEIGHTS else name for name in possible),
        info=info,
        image_size=image_size,
    )
    shapes = [_input_shape(start, size) for size in s.extremes("image_size")]
    return dataclasses.replace(
        start,
        shape=_input_shape(start, image_size),
        largest=max(shapes, key=lambda given: min(given.height, given.width)),
    )


def _input_shape(start: Start, image_size: int) -> ImageShape:
    start = dataclasses.replace(start, image_size=image_size)
    return input_shape(make_input(start, start.info, "dataset"), start.data)


def make_input(start: Start, info: WeightsInfo | None, normalise: str) -> InputConfig:
    """The input that fits the weights, in the proportions of the data.

    Torchvision brings the shorter side of an image to one size, and cuts the square out of its
    centre that the network was trained with.

    Args:
        normalise: "weights" for what they were trained with, or a row of the table.
    """
    height, width, shorter = (
        start.data.height,
        start.data.width,
        min(start.data.height, start.data.width),
    )
    if info is None:
        if not start.image_size:
            return InputConfig(normalise=normalise)
        scale = start.image_size / shorter
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return InputConfig(size=size, normalise=normalise)
    wanted = info.input
    size = (wanted.size[0], wanted.size[1]) if wanted.size else (height, width)
    scale = start.image_size / min(size) if start.image_size else 1.0
    size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    resize: tuple[int, ...] = ()
    if wanted.resize:
        side = min(wanted.resize) * scale / shorter
        resize = max(size[0], round(height * side)), max(size[1], round(width * side))
    given = normalise == "weights" and bool(wanted.mean)
    if normalise == "weights" and not given:
        normalise = "dataset"
    return InputConfig(
        size=size,
        resize=() if resize == size else resize,
        channels=wanted.channels,
        normalise="given" if given else normalise,
        mean=wanted.mean if given else (),
        std=wanted.std if given else (),
    )
