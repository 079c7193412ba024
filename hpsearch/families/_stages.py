"""The stages of a model of torchvision, and the sizes that it takes: found by running it on the
`meta` device, where tensors have shapes but no values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError
from hpsearch.families._architectures import Step, architecture_of
from hpsearch.families._stems import change_stem, keeps_kernel, stems_of, take_gray, without_pool
from hpsearch.training.dropout import ScheduledDropout

POOLS = ("avg", "max", "flat")
"""Of the last map by the head: the published pooling, an average; the maximum instead; or none."""

# Every model takes this size: the cuts are found at it.
_USUAL = ImageShape(224, 224, 3)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """A model of torchvision without its last layer.

    Attributes:
        stages: by name, from input to output; each is a stage of the model to be.
        head: what comes before the new classifier in the last stage, the head.
        published: by the name of a tensor in `StagedModel`, where the stages come first and then a
            head that begins with these modules, its name in torchvision's model.
    """

    stages: dict[str, nn.Module]
    head: list[nn.Module]
    published: dict[str, str]


def take_apart(name: str, shape: ImageShape, *, stem: str, pool: str) -> Parts:
    """Makes the model called `name` for images of `shape`, and cuts it into stages.

    Raises:
        InfeasibleError: the model has no such stem or pool, or cannot be made for the shape.
        ConfigError: an unknown model.
    """
    architecture = architecture_of(name)
    model = architecture.make(name, shape)
    state = model.state_dict(keep_vars=True)
    plan = _plan(name)
    if stem not in plan.stems:
        raise InfeasibleError(f"{name} has no stem {stem!r}; it has {', '.join(plan.stems)}")
    change_stem(model, stem, architecture.small)
    kept = [key for key, own in model.state_dict(keep_vars=True).items() if own is state[key]]
    if shape.channels == 1:
        take_gray(model)  # only weights for gray images fit then, but they are called the same
        state = model.state_dict(keep_vars=True)
    if architecture.fit is not None:
        architecture.fit(model, shape)
    chain = architecture.trunk(model)
    stages: dict[str, nn.Module] = {}
    for stage, (start, end) in plan.trunk.items():
        part = chain[start:end]
        part = without_pool(part) if start == 0 and stem != "standard" else part
        # A stage of one step is that step: the names of its parts stay short.
        stages[stage] = part[0][1] if len(part) == 1 else _sequence(part)
    layers, head = _split_tail(_pooled(name, architecture.tail(model), pool))
    stages |= layers
    every = {**stages, "head": nn.Sequential(*head)}
    return Parts(stages=stages, head=head, published=_published(every, state, kept))


def _published(
    stages: Mapping[str, nn.Module], state: Mapping[str, Tensor], kept: Sequence[str]
) -> dict[str, str]:
    """The names in `state` of the tensors in `stages` that are the same, if among those `kept`."""
    names = {id(state[name]): name for name in kept}
    own = nn.ModuleDict(stages).state_dict(prefix="stages.", keep_vars=True)
    return {key: names[id(tensor)] for key, tensor in own.items() if id(tensor) in names}


def _sequence(part: Sequence[Step]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(part))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """What holds for a model at all sizes.

    Attributes:
        trunk: by name of a stage, the first of its steps, and the one after its last.
        stages: names of all stages.
        stems: those of `STEMS` that it has.
        fitting: those of them that published weights fit.
        features: how many the classifier gets, with the published stem and pool.
    """

    trunk: dict[str, tuple[int, int]]
    stages: tuple[str, ...]
    stems: tuple[str, ...]
    fitting: tuple[str, ...]
    features: int


@functools.cache
def _plan(name: str) -> _Plan:
    architecture = architecture_of(name)
    with torch.device("meta"):
        model = architecture.make(name, _USUAL).eval()
        chain, tail = architecture.trunk(model), architecture.tail(model)
    maps = _no_images(_USUAL)
    sides = [_USUAL.height]
    with torch.no_grad():
        for _, module in chain:
            maps = module(maps)
            sides.append(maps.shape[2])
        features: Tensor = _sequence(tail)(maps)
    starts = architecture.cut(chain, sides)
    names = [architecture.stem] if architecture.stem else []
    names += [f"{architecture.stage}{number}" for number in range(1, 1 + len(starts) - len(names))]
    layers, _ = _split_tail(tail)
    stems = stems_of(architecture, model)
    return _Plan(
        trunk=dict(zip(names, zip(starts, [*starts[1:], len(chain)], strict=True), strict=True)),
        stages=(*names, *layers, "head"),
        stems=stems,
        fitting=tuple(stem for stem in stems if keeps_kernel(model, stem, architecture.small)),
        features=features.shape[1],
    )


def _no_images(shape: ImageShape) -> Tensor:
    return torch.zeros(1, shape.channels, shape.height, shape.width, device="meta")


def stage_names(name: str) -> tuple[str, ...]:
    """The stages of the model called `name`, from input to output.

    Raises:
        ConfigError: an unknown model.
    """
    return _plan(name).stages


def stem_names(name: str, *, published: bool = False) -> tuple[str, ...]:
    """Those of `STEMS` that the model called `name` has.

    Args:
        published: only those that published weights fit.

    Raises:
        ConfigError: an unknown model.
    """
    return _plan(name).fitting if published else _plan(name).stems


def _pooled(name: str, tail: list[Step], pool: str) -> list[Step]:
    (path, published), *rest = tail
    if pool == "avg":
        return tail
    if not isinstance(published, nn.AdaptiveAvgPool2d):
        raise InfeasibleError(f"{name} pools no map, so that its pool must be avg, not {pool!r}")
    if pool == "max":
        return [(path, nn.AdaptiveMaxPool2d(published.output_size)), *rest]
    if any(isinstance(module, nn.Linear) for _, module in rest):
        raise InfeasibleError(
            f"{name} has a linear layer behind its pool, for a map of one size: its pool must be "
            f"avg or max, not {pool!r}"
        )
    return [(path, nn.Identity()), *rest]


def _split_tail(tail: Sequence[Step]) -> tuple[dict[str, nn.Module], list[nn.Module]]:
    """The stages in front of the head, each a linear layer with its activation and what is before
    it; and what is left for the head. The dropout there is the new classifier's.
    """
    layers: dict[str, nn.Module] = {}
    rest: list[Step] = []
    for path, module in tail:
        linear = any(isinstance(other, nn.Linear) for _, other in rest)
        rest.append((path, ScheduledDropout() if isinstance(module, nn.Dropout) else module))
        if linear:
            layers[f"fc{len(layers) + 1}"] = _sequence(rest)
            rest = []
    return layers, [module for _, module in rest if not isinstance(module, nn.Dropout)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Misfit:
    """Images are too small: the layer that fails, as in conv5.12 (MaxPool2d), and what it gets."""

    layer: str
    size: str


@functools.lru_cache(maxsize=4096)
def _outcome(name: str, stem: str, pool: str, height: int, width: int) -> int | _Misfit:
    """How many features the new classifier gets from images of this size, or what fails."""
    shape = ImageShape(height, width, 3)
    if (stem, pool, shape) == ("standard", "avg", _USUAL):
        return _plan(name).features
    with torch.device("meta"):
        parts = take_apart(name, shape, stem=stem, pool=pool)
    stages = nn.Sequential(OrderedDict(parts.stages))
    entered: list[_Misfit] = []
    for path, module in stages.named_modules():
        module.register_forward_pre_hook(_note(entered, path))
        module.register_forward_hook(_refuse_empty)
    try:
        with torch.no_grad():
            features: Tensor = nn.Sequential(stages, *parts.head).eval()(_no_images(shape))
    except NotImplementedError:
        raise
    except RuntimeError:
        return entered[-1]
    return features.shape[1]


def _note(entered: list[_Misfit], path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        sides = inputs[0].shape[2:] if inputs and isinstance(inputs[0], Tensor) else ()
        layer = f"{path} ({type(module).__name__})"
        entered.append(_Misfit(layer=layer, size="x".join(str(side) for side in sides)))

    return hook


def _refuse_empty(module: nn.Module, inputs: object, outputs: object) -> None:
    # On meta, torch 2.11 lets a convolution make a map of no pixels where one side is too short.
    if isinstance(outputs, Tensor) and outputs.numel() == 0:
        raise RuntimeError("the map is empty")


def fits(name: str, shape: ImageShape, *, stem: str) -> bool:
    """Whether a model takes images of `shape`.

    Raises:
        InfeasibleError: the model has no such stem, or takes some sizes only.
        ConfigError: an unknown model.
    """
    return not isinstance(_outcome(name, stem, "avg", shape.height, shape.width), _Misfit)


@functools.cache
def least_side(name: str, stem: str) -> int:
    """The least side of a square image that a model takes.

    Raises:
        InfeasibleError: the model has no such stem, or takes some sizes only.
    """
    low, high = 0, _USUAL.height  # too small, and large enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = fits(name, ImageShape(middle, middle, 3), stem=stem)
        low, high = (low, middle) if enough else (middle, high)
    return high


def feature_count(name: str, shape: ImageShape, *, stem: str, pool: str) -> int:
    """How many features the head's classifier gets from images of `shape`.

    Raises:
        InfeasibleError: the images are too small for the model, or the model has no such stem or
            pool.
        ConfigError: an unknown model.
    """
    outcome = _outcome(name, stem, pool, shape.height, shape.width)
    if not isinstance(outcome, _Misfit):
        return outcome
    least = least_side(name, stem)
    others = [o for o in stem_names(name) if o != stem and fits(name, shape, stem=o)]
    advice = f" or the stem {' or '.join(others)}" if others else ""
    raise InfeasibleError(
        f"{name}: images of {shape.height}x{shape.width} are too small, because {outcome.layer} "
        f"gets a map of {outcome.size}; use images of at least {least}x{least}{advice}"
    )
