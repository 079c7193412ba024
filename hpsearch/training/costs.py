"""What a model costs, as an objective of a search beside its scores on the validation images.

A new cost is one row of `COSTS`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from hpsearch.data.dataset import ImageShape
from hpsearch.training.device import wait_for
from hpsearch.training.layers import layer_table, totals
from hpsearch.training.model import StagedModel, parameter_counts

_WARM_UP = 3
"""Passes that are not timed: libraries choose their kernels in the first ones."""

_PASSES = (5, 200)
"""At least and at most so many are timed."""

_SECONDS = 0.5
"""No further pass is timed after so long, where the least number is done."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """One row of `COSTS`; it follows from the model, not from the images.

    Attributes:
        name: as the user gives it.
        label: for people, in a sentence.
        short: for people, above a column of values.
        direction: "minimize", as Optuna says it.
        unit: what a value counts; values are written by it.
        measure: of one image's way through a model that lies on the device; the model is left as
            it is.
    """

    name: str
    label: str
    short: str
    direction: Literal["minimize"] = "minimize"
    unit: str
    measure: Callable[[StagedModel, ImageShape, torch.device], float]


def count_macs(model: StagedModel, shape: ImageShape, device: torch.device) -> int:
    """Multiplications of one image's forward pass, each with its addition: of convolutions,
    linear layers and other matrix products (see `hpsearch.training.layers.LayerRow`).
    """
    try:
        return totals(layer_table(model, shape)).macs
    except Exception:
        # A model of the user's own may look at values, which tensors on meta do not have, or may
        # not be possible to copy: its operations are counted as it runs.
        return _macs_of_a_pass(model, shape, device)


def _macs_of_a_pass(model: StagedModel, shape: ImageShape, device: torch.device) -> int:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, which is not counted
    try:
        with (
            _evaluating(model, device),
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
        ):
            model(_image(shape, device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def latency_ms(
    model: StagedModel,
    shape: ImageShape,
    device: torch.device,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Milliseconds of one image's forward pass in fp32, the median of some after a warm-up.

    It is a measurement: it differs between devices, with torch's number of threads, with what else
    the machine does (other workers of the same search included) and from one time to the next.
    """
    least, most = _PASSES
    image = _image(shape, device)
    taken: list[float] = []
    with _evaluating(model, device), torch.inference_mode():
        for _ in range(_WARM_UP):
            model(image)
        wait_for(device)
        begin = clock()
        while len(taken) < least or (len(taken) < most and clock() - begin < _SECONDS):
            start = clock()
            model(image)
            wait_for(device)
            taken.append(clock() - start)
    return 1000 * statistics.median(taken)


def _image(shape: ImageShape, device: torch.device) -> torch.Tensor:
    """A batch of one: the mean of all images, as they are normalised."""
    return torch.zeros(1, shape.channels, shape.height, shape.width, device=device)


@contextlib.contextmanager
def _evaluating(model: StagedModel, device: torch.device) -> Iterator[None]:
    """The model in evaluation mode; its modules' own modes, of which those of frozen ones differ,
    and torch's random generators are put back afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode


COSTS: tuple[Cost, ...] = (
    Cost(
        name="params",
        label="parameters",
        short="params",
        unit="parameters",
        measure=lambda model, *_: float(parameter_counts(model)[0]),
    ),
    Cost(
        name="macs",
        label="multiplications an image",
        short="MACs",
        unit="MACs",
        measure=lambda model, shape, device: float(count_macs(model, shape, device)),
    ),
    Cost(
        name="latency",
        label="latency",
        short="latency",
        unit="ms",
        measure=latency_ms,
    ),
)
