"""The device that trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from hpsearch.data.words import plural
from hpsearch.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device {name!r} is not here: this machine has {plural(count, 'CUDA device')}; "
                "use cpu, or auto"
            )
        return torch.device("cuda", device.index or 0)
    return device


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Has torch compute with so many threads in the block; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_for(device: torch.device) -> None:
    """Returns when `device` has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
