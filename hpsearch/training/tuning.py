"""What was measured on this machine, kept in a file, so that it is measured once.

It is never needed: a file that is lost, damaged or cannot be written costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.store import cache_folder
from hpsearch.data.words import plural
from hpsearch.files import write_text

FILE = "tuning.json"
MOST_ROWS = 2000


class Tuning:
    """A table in a file, shared by all processes of this user; the oldest of many rows go."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / FILE

    def get(self, key: str) -> dict[str, float] | None:
        """What was put there under `key`, or None."""
        return _row(self._read().get(key))

    def put(self, key: str, value: Mapping[str, float], *, replace: bool = False) -> None:
        """Keeps `value` where that is possible, and where another process was not first.

        Args:
            replace: what is there is of no use.
        """
        # Some file systems have no locks.
        with contextlib.suppress(OSError, NotImplementedError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{self._path}.lock", timeout=5):
                known = self._read()
                if _row(known.get(key)) is not None and not replace:
                    return
                rows = [*known.items(), (key, dict(value))][-MOST_ROWS:]
                write_text(self._path, json.dumps(dict(rows), indent=1))

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _row(value: object) -> dict[str, float] | None:
    """`value`, where it is what `put` takes."""
    if not isinstance(value, dict) or not all(isinstance(n, float) for n in value.values()):
        return None
    return value


def tuning_key(
    what: str,
    model: nn.Module,
    config: TrainConfig,
    shape: ImageShape,
    device: torch.device,
    *,
    also: str = "",
) -> str:
    """Names all that a measurement of a step depends on, but the setting.

    Args:
        what: is measured.
        shape: of the model's input.
        also: what else it depends on.
    """
    batch = (config.batch_size, config.micro_batch, config.ema > 0, config.grad_clip > 0)
    parts = (model_key(model, config, shape), batch, torch.__version__, device_name(device), also)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    return f"{what}: {config.family} at {shape}, batch {config.batch_size}, {digest}"


def model_key(model: nn.Module, config: TrainConfig, shape: ImageShape) -> str:
    """Names a model, what of it is trained and by what, and the shape of its input."""
    weights = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    parts = (str(model), weights, str(shape), config.optimizer.name)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def device_name(device: torch.device) -> str:
    """The kind of device, and of a CPU how many threads work on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_model()}, {torch.get_num_threads()} threads"


def device_words(device: torch.device) -> str:
    """The device itself, such as "cpu (2 threads)" or "cuda:0, NVIDIA H100 80GB HBM3"."""
    if device.type == "cuda":
        return f"{device}, {device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device} ({plural(threads, 'thread')})"


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
