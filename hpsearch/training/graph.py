"""Steps replayed from a CUDA graph: one launch instead of hundreds of small ones."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from hpsearch.data.batches import TrainBatch

WARM_UP = 3
"""Steps of each kind of batch that are run as they are, before one is captured: libraries make
their choices in the first ones, and optimizers their state.
"""


TakeStep = Callable[[TrainBatch], tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Captured:
    """A graph with what it reads and writes, which stays where it is."""

    graph: torch.cuda.CUDAGraph
    batch: TrainBatch
    outputs: tuple[Tensor, Tensor]


class GraphedStep:
    """Runs a step; from the fourth batch of a shape on, as a CUDA graph.

    Batches of an epoch differ by one image at most, so there are two graphs. The random numbers
    of dropout come from the device's default generator, which graphs advance as kernels do.

    It does not keep the step, which would keep it: both are gone as soon as nobody needs them.

    Args:
        device: with its number.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: dict[tuple[object, ...], int] = {}
        self._captured: dict[tuple[object, ...], _Captured] = {}

    def __call__(self, step: TakeStep, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """The step's outputs for `batch`.

        Args:
            step: reads nothing that is not a tensor on the device but what never changes, and does
                not wait for the device. Its outputs are two tensors. Always the same one.
        """
        key = (batch.images.shape, batch.other is None)
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        if seen <= WARM_UP:
            return self._aside(step, batch)
        if key not in self._captured:
            self._captured[key] = self._capture(step, batch)
        captured = self._captured[key]
        for held, given in zip(captured.batch.tensors, batch.tensors, strict=True):
            held.copy_(given, non_blocking=True)
        captured.graph.replay()
        loss, predicted = captured.outputs
        return loss.clone(), predicted.clone()

    def _aside(self, step: TakeStep, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """On the stream that capturing uses, as torch wants it."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            # Optimizers that are made for graphs take these steps for those of a mistake.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturab")
            outputs = step(batch)
        current.wait_stream(self._stream)
        return outputs

    def _capture(self, step: TakeStep, batch: TrainBatch) -> _Captured:
        held = TrainBatch(*(tensor.clone() for tensor in batch.tensors))
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self._device.index]
        before = generator.clone_state()
        # What other threads do meanwhile, such as fetching images, is not part of it.
        capture = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        try:
            with capture:
                outputs = step(held)
        except Exception:
            # A capture that fails leaves the generator as one that is being captured.
            generator.graphsafe_set_state(before)
            raise
        return _Captured(graph, held, outputs)


@functools.lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all: each stream keeps memory of its own."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
