"""How busy GPUs are and how much of their memory is taken, as the driver tells (NVML)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch

SAMPLE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuLoad:
    """The load of a GPU, or of the part of one (MIG) that is visible here; of all processes.

    Attributes:
        device: as torch calls it, such as "cuda:0".
        name: of the model.
        busy: share of the last moments in which it computed; None: not known, as of a part.
        used, total: bytes of its memory.
    """

    device: str
    name: str
    busy: float | None
    used: int
    total: int


class GpuReader:
    """Reads the load of some devices of this process. Nothing of it raises: of what is no GPU, or
    cannot be read, there is no load.

    Args:
        devices: as torch calls them.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._nvml: Any = None
        self._handles: list[tuple[str, str, Any]] = []
        with contextlib.suppress(Exception):
            self._open([torch.device(name) for name in devices])

    def _open(self, devices: Sequence[torch.device]) -> None:
        gpus = [device for device in devices if device.type == "cuda"]
        if not gpus:
            return
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        for device in gpus:
            index = device.index or 0
            properties = torch.cuda.get_device_properties(index)
            for name in _names(index, str(properties.uuid)):
                with contextlib.suppress(pynvml.NVMLError):
                    handle = pynvml.nvmlDeviceGetHandleByUUID(name)
                    self._handles.append((f"cuda:{index}", properties.name, handle))
                    break

    @property
    def finds(self) -> bool:
        """Whether there is a GPU that can be read."""
        return bool(self._handles)

    def read(self) -> tuple[GpuLoad, ...]:
        """The load of each device that can be read, in their order."""
        loads = []
        for device, name, handle in self._handles:
            with contextlib.suppress(Exception):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                loads.append(
                    GpuLoad(
                        device=device,
                        name=name,
                        busy=self._busy(handle),
                        used=int(memory.used),
                        total=int(memory.total),
                    )
                )
        return tuple(loads)

    def _busy(self, handle: Any) -> float | None:
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except Exception:  # of a part of a GPU the driver does not tell
            return None

    def close(self) -> None:
        """Lets the driver go."""
        with contextlib.suppress(Exception):
            if self._nvml is not None:
                self._nvml.nvmlShutdown()


def _names(index: int, uuid: str) -> list[str]:
    """What NVML may call a device of this process: numbers of devices are those that
    CUDA_VISIBLE_DEVICES leaves, and NVML knows nothing of that.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    own = visible[index].strip() if index < len(visible) else ""
    return [*([own] if own.startswith("MIG-") else []), f"GPU-{uuid}", f"MIG-{uuid}"]


class GpuMeter:
    """Reads the load of devices in a thread of its own while it is entered, so that a driver that
    is slow, or hangs, holds nobody up.
    """

    def __init__(self, devices: Sequence[str], *, every: float = SAMPLE_SECONDS) -> None:
        self._devices = devices
        self._every = every
        self._loads: tuple[GpuLoad, ...] = ()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._sample, name="gpu meter", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    @property
    def loads(self) -> tuple[GpuLoad, ...]:
        """As they were last read; empty where there is no GPU, or before the first time."""
        return self._loads

    def _sample(self) -> None:
        reader = GpuReader(self._devices)
        while reader.finds and not self._over.is_set():
            self._loads = reader.read()
            self._over.wait(self._every)
        reader.close()
