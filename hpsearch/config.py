"""Everything that determines one training run, as frozen, validated, JSON-ready dataclasses.

Names of families, optimizers, schedules and augmentations are plain strings here; the tables that
know them (higher up) check them when the run is built.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Literal

from hpsearch.checks import (
    JsonConfig,
    Options,
    check_bool,
    check_choice,
    check_int,
    check_name,
    check_number,
    copy_options,
    require,
)

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["channels_last", "contiguous"]
Execution = Literal["eager", "graph", "compile"]
Balance = Literal["none", "weights", "sampling"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(JsonConfig):
    """An optimizer of the table in `training/optimizers.py`, with its settings.

    Attributes:
        lr: the learning rate at a factor of 1 of the schedule, in the model's last stage.
        lr_per: 0 where `lr` is what is used; a number of images where `lr` is for batches of that
            many, and in proportion for others (Goyal et al., arXiv 1706.02677).
        stage_decay: the learning rate of each stage is this factor of the next one's.
        weight_decay: not applied to biases and normalisation weights, unless `decay_all`.
        options: settings that only some optimizers have, such as `momentum`.
    """

    name: str = "adamw"
    lr: float = 1e-3
    lr_per: int = 0
    stage_decay: float = 1.0
    weight_decay: float = 0.0
    decay_all: bool = False
    options: Options = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("optimizer", self.name)
        check_number("lr", self.lr, low=0.0)
        require(self.lr > 0, "lr", self.lr, "above 0")
        check_int("lr_per", self.lr_per, low=0)
        check_number("stage_decay", self.stage_decay, low=0.0, high=1.0)
        require(self.stage_decay > 0, "stage_decay", self.stage_decay, "above 0")
        check_number("weight_decay", self.weight_decay, low=0.0)
        check_bool("decay_all", self.decay_all)
        copy_options(self, "options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(JsonConfig):
    """A learning-rate schedule of the table in `training/schedules.py`.

    It spans all epochs of the configuration. In a fraction `warmup` of them, before it, the
    learning rate rises linearly from 0. `options` are the settings that only some schedules
    have, such as `milestones`.
    """

    name: str = "cosine"
    warmup: float = 0.0
    options: Options = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("schedule", self.name)
        check_number("warmup", self.warmup, low=0.0, high=0.9)
        copy_options(self, "options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DropoutConfig(JsonConfig):
    """A dropout schedule of the table in `training/dropout.py`.

    Attributes:
        rate: the highest rate.
        depth: a row of the table of shares by depth: "flat" is the same rate everywhere.
        options: settings that only some schedules have, such as `epochs` and `rates`.
    """

    schedule: str = "constant"
    rate: float = 0.0
    depth: str = "flat"
    options: Options = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("dropout_schedule", self.schedule)
        check_number("dropout", self.rate, low=0.0, high=0.95)
        check_name("dropout_depth", self.depth)
        copy_options(self, "options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(JsonConfig):
    """A loss of the table in `training/losses.py`; `options` are those that only it has."""

    name: str = "cross_entropy"
    options: Options = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("loss", self.name)
        copy_options(self, "options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputConfig(JsonConfig):
    """How images become the input of a model.

    Attributes:
        size: height and width of the input; empty: those of the data.
        resize: height and width that images are brought to before `size` is cut out of their
            centre; empty: `size`, and nothing is cut.
        channels: 0: those of the data. 3: gray images are repeated.
        normalise: a row of the table in `data/preprocessing.py`, or "given".
        mean, std: one value a channel, where `normalise` is "given".
    """

    size: tuple[int, ...] = ()
    resize: tuple[int, ...] = ()
    channels: int = 0
    normalise: str = "dataset"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            value = getattr(self, name)
            require(
                isinstance(value, tuple) and len(value) in (0, 2), name, value, "height and width"
            )
            for side in value:
                check_int(name, side, low=1)
        require(
            not self.resize
            or (
                bool(self.size)
                and self.resize[0] >= self.size[0]
                and self.resize[1] >= self.size[1]
            ),
            "resize",
            self.resize,
            f"no smaller than the size {self.size}",
        )
        known = type(self.channels) is int and self.channels in (0, 1, 3)
        require(known, "channels", self.channels, "0, 1 or 3")
        check_name("normalise", self.normalise)
        given = self.normalise == "given"
        for name in ("mean", "std"):
            value = getattr(self, name)
            require(
                isinstance(value, tuple) and bool(value) == given,
                name,
                value,
                "given where normalise is 'given', and only there",
            )
            for item in value:
                check_number(name, item, low=-10.0 if name == "mean" else 1e-6, high=10.0)
        require(len(self.mean) == len(self.std), "std", self.std, "as long as mean")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig(JsonConfig):
    """The weights that training starts from.

    Attributes:
        source: the name of torchvision's weights, a file, or an export of ours.
        sha256: of the file, in hexadecimal; empty until it is known.
    """

    source: str
    sha256: str = ""

    def __post_init__(self) -> None:
        check_name("weights", self.source)
        require(isinstance(self.sha256, str), "sha256", self.sha256, "a text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping(JsonConfig):
    """Stop when `patience` epochs in a row did not make the best value of the objective better by
    more than `min_gain` (of an accuracy a fraction: 0.001 is 0.1 points).
    """

    patience: int
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        check_int("patience", self.patience, low=1)
        check_number("min_gain", self.min_gain, low=0.0, high=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(JsonConfig):
    """Everything that determines one training run, resolved: no ranges, no 'auto'.

    It is stored whole on every trial, so that the run can be repeated from its record alone,
    whatever becomes of the search space later.

    Attributes:
        family: a model family, a file of `hpsearch/families/`.
        options: what the family's `build` takes (layer count, widths, ...).
        weights: what the stages before the head start from; None: `init` alone.
        init: of the weights, a row of the table in `training/init.py`.
        input: size and normalisation of the images.
        augment: strength by name of an augmentation of `data/augment/`; training images only.
        repeat: how many times an epoch shows each training image, each time augmented anew.
        train_images: how many training images are used, drawn by class; 0: all of them.
        balance: "none", "weights" (of the loss, by class) or "sampling" (each class as often).
        grad_clip: greatest norm of the gradient; 0: no limit.
        ema: decay a step of the averaged weights, which are then what is evaluated and kept; 0:
            none.
        freeze_depth: how many of the model's stages, counted from the input, are not trained.
        freeze: names of stages or modules that are not trained either, with * and ?.
        micro_batch: so many images at most go through the model at once: a larger batch is taken
            in parts whose gradients are added up, so that BatchNorm sees the parts; 0: no limit.
        precision: "fp32", or "bf16" for automatic mixed precision.
        memory_format: the order in memory of images and maps: "channels_last" (NHWC) or
            "contiguous" (NCHW).
        execution: how a step is run: "eager"; "graph", replayed from one CUDA graph; or "compile",
            by torch.compile.
        objective: by which the best epoch is chosen and early stopping decides, a row of the table
            in `training/objectives.py`.
        seed: of the initial weights, the order of the images, augmentation and dropout.
    """

    family: str
    options: Options = dataclasses.field(default_factory=dict)
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
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
    batch_size: int = 64
    epochs: int = 20
    early_stopping: EarlyStopping | None = None
    freeze_depth: int = 0
    freeze: tuple[str, ...] = ()
    micro_batch: int = 0
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    execution: Execution = "eager"
    objective: str = "val_accuracy"
    seed: int = 0

    def __post_init__(self) -> None:
        check_name("family", self.family)
        for name, kind in (
            ("optimizer", OptimizerConfig),
            ("schedule", ScheduleConfig),
            ("dropout", DropoutConfig),
            ("early_stopping", EarlyStopping | None),
            ("weights", WeightsConfig | None),
            ("input", InputConfig),
            ("loss", LossConfig),
        ):
            value = getattr(self, name)
            require(isinstance(value, kind), name, value, f"of the type {kind!s}")
        copy_options(self, "options")
        copy_options(self, "augment")
        for name, strength in self.augment.items():
            check_number(f"augment[{name!r}]", strength, low=0.0)
        check_name("init", self.init)
        check_int("repeat", self.repeat, low=1)
        check_int("train_images", self.train_images, low=0)
        check_number("label_smoothing", self.label_smoothing, low=0.0, high=0.9)
        check_choice("balance", self.balance, typing.get_args(Balance))
        check_number("grad_clip", self.grad_clip, low=0.0)
        check_number("ema", self.ema, low=0.0, high=1.0)
        require(self.ema < 1, "ema", self.ema, "below 1")
        check_int("batch_size", self.batch_size, low=1)
        check_int("epochs", self.epochs, low=1)
        check_int("freeze_depth", self.freeze_depth, low=0)
        require(
            isinstance(self.freeze, tuple) and all(isinstance(n, str) and n for n in self.freeze),
            "freeze",
            self.freeze,
            "a tuple of names",
        )
        check_int("micro_batch", self.micro_batch, low=0)
        check_choice("precision", self.precision, typing.get_args(Precision))
        check_choice("memory_format", self.memory_format, typing.get_args(MemoryFormat))
        check_choice("execution", self.execution, typing.get_args(Execution))
        check_name("objective", self.objective)
        check_int("seed", self.seed, low=0)
        require(self.seed < 2**64, "seed", self.seed, "below 2**64")
