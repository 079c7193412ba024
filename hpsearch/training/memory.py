"""Memory: what running out of it looks like, how much was taken, and how it is given back."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

import torch

# Of malloc.h in the GNU C library.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3

# What PyTorch and oneDNN say on a CPU, and CUDA's libraries; there is no class of its own for it.
# "could not create a primitive descriptor" is something else: oneDNN cannot do that. TorchDynamo
# has errors of its own, which name those of the memory in their text.
_MESSAGES = re.compile(
    "can't allocate memory|could not create a memory object|could not create a primitive$"
    "|not enough memory: you tried to allocate|std::bad_alloc"
    "|CUDA error: out of memory|_STATUS_ALLOC_FAILED|CUDA out of memory|MemoryError: "
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device's or the computer's memory was not enough."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MESSAGES.search(str(error)) is not None


def release_memory(device: torch.device) -> None:
    """Gives back to the system what nothing uses any more: of `device`, and of this process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakMemory:
    """The most memory that is taken from now on.

    On a GPU it is what torch had allocated there at once, images included. On a CPU it is what the
    whole process held, with the interpreter, the images, and what it keeps of freed memory: so much
    has to be there for another such process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # Linux forgets the highest size so far; other systems only know that of all times.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._known = False

    def mib(self) -> float | None:
        """MiB; None where the system does not tell."""
        if not self._known:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return None if found is None else int(found[1]) / 1024


def keep_freed_memory() -> None:
    """Has the GNU C library keep large blocks that are freed for the next allocation.

    By default it gives each block above some megabytes back at once, and gets it anew from the
    system, which clears each page again: a step of training allocates and frees the same blocks
    again and again. `release_memory` gives back what is kept. It is for the whole process;
    nothing happens with other C libraries.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        # Before 2.35 it takes 32 MiB at most, and refuses more.
        _ = mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_THRESHOLD, 2**25)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**26)


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
