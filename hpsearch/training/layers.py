"""The layers of a model: shapes, parameters and multiplications, without running it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.training.model import StagedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of a model, for one image.

    Attributes:
        stage: the stage that it is in.
        name: its path in the stage, such as 3 or attention.query; empty: the stage itself.
        kind: its class, such as Conv2d.
        output: shape of what it gives, without the batch.
        parameters: how many it has; 0 in the second row of a layer that is used twice.
        trained: how many of these are trained; the others are frozen.
        macs: multiplications (each with its addition) of convolutions, linear layers and other
            matrix products, those of attention included; biases, normalisation, activations and
            pooling are not counted.
    """

    stage: str
    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trained: int
    macs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerTotals:
    """Sums over rows: what they say of parameters and multiplications."""

    parameters: int
    trained: int
    macs: int

    @property
    def frozen(self) -> int:
        """How many parameters are not trained."""
        return self.parameters - self.trained


def totals(rows: Iterable[LayerRow]) -> LayerTotals:
    """The sums over `rows`: over all of a model's, they equal `parameter_counts`."""
    kept = tuple(rows)
    return LayerTotals(
        parameters=sum(row.parameters for row in kept),
        trained=sum(row.trained for row in kept),
        macs=sum(row.macs for row in kept),
    )


@dataclasses.dataclass(kw_only=True, eq=False)
class _Call:
    """One use of a module in the forward pass: what it gave, and the work inside of it."""

    module: nn.Module
    parent: _Call | None
    output: tuple[int, ...] = ()
    flops: int = 0
    inner_flops: int = 0


def layer_table(model: StagedModel, shape: ImageShape) -> tuple[LayerRow, ...]:
    """The layers of `model` in the order of their use on an image of `shape`.

    A layer is a module without modules in it; one that is used twice has two rows. A module that
    works on parameters itself (a class token, a scale, attention that takes its linear layers'
    weights) has a row too, before those of its layers. The model is run once, as in evaluation,
    on the `meta` device, where tensors have shapes but no values; `model` itself is not touched.

    Raises:
        ConfigError: a stage with parameters is not called.
    """
    twin = _on_meta(model).eval()
    calls = _traced(twin, torch.empty(1, shape.channels, shape.height, shape.width, device="meta"))
    own = _parameters_by_call(twin, calls)
    paths = {module: path for path, module in twin.stages.named_modules()}
    rows = []
    for call in calls:
        parameters = own.get(call, [])
        macs = (call.flops - call.inner_flops) // 2
        if any(True for _ in call.module.children()) and not parameters and not macs:
            continue
        stage, _, name = paths[call.module].partition(".")
        rows.append(
            LayerRow(
                stage=stage,
                name=name,
                kind=type(call.module).__name__,
                output=call.output,
                parameters=sum(p.numel() for p in parameters),
                trained=sum(p.numel() for p in parameters if p.requires_grad),
                macs=macs,
            )
        )
    return tuple(rows)


def _on_meta(model: StagedModel) -> StagedModel:
    """A copy whose tensors have no values, so that it costs no memory."""

    def hollow(tensor: Tensor) -> Tensor:
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(empty, requires_grad=tensor.requires_grad)
        return empty

    # deepcopy takes what it finds here for a copy that it has made already.
    copied: dict[int, Any] = {
        id(tensor): hollow(tensor)
        for tensor in itertools.chain(model.parameters(), model.buffers())
    }
    return copy.deepcopy(model, copied)


def _traced(model: StagedModel, images: Tensor) -> list[_Call]:
    """Runs the stages of `model`, and says which modules were used, in order."""
    calls: list[_Call] = []
    running: list[_Call] = []
    counter = FlopCounterMode(display=False)

    def enter(module: nn.Module, *_: object) -> None:
        call = _Call(module=module, parent=running[-1] if running else None)
        call.flops = -counter.get_total_flops()
        calls.append(call)
        running.append(call)

    def leave(_module: nn.Module, _inputs: object, output: object) -> None:
        call = running.pop()
        call.flops += counter.get_total_flops()
        call.output = next((tuple(t.shape[1:]) for t in _tensors(output)), ())
        if call.parent is not None:
            call.parent.inner_flops += call.flops

    for path, module in model.stages.named_modules():
        if path:
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)
    with torch.no_grad(), counter:
        model(images)
    return calls


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _parameters_by_call(model: StagedModel, calls: list[_Call]) -> dict[_Call, list[nn.Parameter]]:
    """Every parameter once: with the first use of its module or, where the module was not called,
    of the innermost one around it that was.

    Raises:
        ConfigError: none of these was called.
    """
    first = {call.module: call for call in reversed(calls)}
    modules = dict(model.stages.named_modules())
    own: dict[_Call, list[nn.Parameter]] = {}
    for name, parameter in model.stages.named_parameters():
        path, _, _ = name.rpartition(".")
        while modules[path] not in first:
            if not path:
                raise ConfigError(
                    f"the model never calls what has the parameter {name!r}: its forward must call "
                    "all of its stages"
                )
            path, _, _ = path.rpartition(".")
        own.setdefault(first[modules[path]], []).append(parameter)
    return own
