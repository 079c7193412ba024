"""How values are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 3 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def accuracy(value: float | None) -> str:
    """99.44 %, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.2f} %"


def parameters(params: Mapping[str, Any]) -> str:
    """Lr 0.003, batch_size 64, ..."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


def count_of(times: int) -> str:
    """Once, 2 times."""
    return "once" if times == 1 else f"{times} times"
