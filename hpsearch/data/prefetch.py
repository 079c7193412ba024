"""Batches of images that lie on the CPU, gathered and copied to a GPU while it trains."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from hpsearch.data.dataset import Int64Array, UInt8Array

AHEAD = 2
"""How many batches are made before they are asked for."""

Wanted = TypeVar("Wanted")
Made = TypeVar("Made")


def made_ahead(
    make: Callable[[Wanted], Made], wanted: Iterable[Wanted], *, ahead: int = AHEAD
) -> Generator[Made, None, None]:
    """`map(make, wanted)`, where a thread makes the next `ahead` ones while one is worked with.

    What `make` raises is raised where its result would have come. The thread has ended when the
    generator has: after the last one, after an error, and when it is closed.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="hpsearch-prefetch")
    try:
        # No name refers to what is yielded, nor to what fails: both can be freed at once.
        pending: deque[Future[Made]] = deque()
        for one in wanted:
            pending.append(pool.submit(make, one))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def prefetched(
    images: UInt8Array, batches: Iterable[Int64Array], device: torch.device
) -> Generator[Tensor, None, None]:
    """Images of each of `batches`, in order: uint8 (n, height, width, channels) on `device`.

    On a GPU, they are copied on a stream of their own, and the caller's current stream waits for
    them; the CPU waits for nothing but their gathering.

    Args:
        images: uint8 (M, height, width, channels).
        batches: int64 (n,), from 0 to M - 1: which images are a batch.
    """
    if device.type != "cuda":
        gather = functools.partial(_gathered, images, pinned=False)
        yield from made_ahead(gather, batches)
        return
    stream = _copy_stream(device)

    def copied(rows: Int64Array) -> tuple[Tensor, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            # torch keeps the pinned memory for later batches, but not before it has been copied.
            gathered = _gathered(images, rows, pinned=True)
            return gathered.to(device, non_blocking=True), stream.record_event()

    with contextlib.closing(made_ahead(copied, batches)) as made:
        for batch, is_there in made:
            current = torch.cuda.current_stream(device)
            current.wait_event(is_there)
            # Its memory belongs to the other stream, which must not write to it again too early.
            batch.record_stream(current)
            yield batch


def _gathered(images: UInt8Array, rows: Int64Array, *, pinned: bool) -> Tensor:
    """On the CPU."""
    batch = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    # NumPy lets the other threads run meanwhile. To check the rows, it would copy everything twice.
    images.take(rows, axis=0, out=batch.numpy(), mode="clip")
    return batch


@functools.lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all: each stream keeps memory of its own."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
