"""How measured values are shown to people, in terminals, on pages and in pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpsearch.training.costs import Cost
    from hpsearch.training.objectives import Objective

EPOCHS = "Epochs are counted from 0."


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 3 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_of(when: str) -> str:
    """2026-05-31 12:05, of a time in ISO 8601."""
    return when[:16].replace("T", " ")


def accuracy(value: float | None) -> str:
    """99.44 %, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.2f} %"


def scaled(value: float) -> str:
    """950, 1.2 k, 3.4 M, 17.6 G: about, for what spans many powers of ten."""
    for prefix in ("", "k", "M", "G"):
        # What would be rounded to 1000 is 1.0 of the next.
        if value < (999.5 if not prefix else 999.95):
            return f"{value:.1f} {prefix}" if prefix else f"{value:.0f}"
        value /= 1000
    return f"{value:,.1f} T"


UNITS: Mapping[str, Callable[[float], str]] = {
    "share": accuracy,
    "parameters": lambda value: f"{value:,.0f}",
    "MACs": scaled,
    "ms": lambda value: f"{value:.3g} ms" if value < 100 else f"{value:,.0f} ms",
}
"""How values of an objective are written, by its unit; of others, with four decimals."""


def objective_value(objective: Objective | Cost, value: float | None) -> str:
    """99.44 %, of a loss 0.0312, of a latency 1.27 ms, or a dash where there is none."""
    if value is None:
        return "–"
    return UNITS[objective.unit](value) if objective.unit in UNITS else f"{value:.4f}"


def objective_difference(objective: Objective, value: float | None, *, sign: str = "+") -> str:
    """+1.39, of a share in points; of a loss -0.0312; or a dash where there is none.

    Args:
        sign: "" where it has none, as that of an error.
    """
    if value is None:
        return "–"
    return f"{100 * value:{sign}.2f}" if objective.is_share else f"{value:{sign}.4f}"


def floor_of(objective: Objective, finals: Sequence[float], drawn: Sequence[float]) -> float:
    """The least value that a picture of trials shows, so that the better ones can be told apart:
    bad ones may lie below it.

    Args:
        finals: those by which trials are told apart, their best ones.
        drawn: all that there are; at least one.
    """
    lowest = min(drawn)
    known = sorted(value for value in finals if math.isfinite(value))
    if not objective.is_share or not known:
        return lowest
    # Of three trials, two are shown.
    high, third = known[-1], known[len(known) // 3]
    focus = high - 2 * (high - third)
    return focus if high > third and focus > lowest + 0.3 * (high - lowest) else lowest
