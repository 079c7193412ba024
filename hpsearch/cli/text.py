"""How values are written for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hpsearch.names import printable

if TYPE_CHECKING:
    from hpsearch.training.costs import Cost
    from hpsearch.training.objectives import Objective


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


def objective_name(objective: Objective) -> str:
    """What stands before its values: validation, validation loss, ..."""
    return "validation" if objective.name == "val_accuracy" else objective.label


def parameters(params: Mapping[str, Any]) -> str:
    """Lr 0.003, batch_size 64, ..."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


def count_of(times: int) -> str:
    """Once, 2 times."""
    return "once" if times == 1 else f"{times} times"


def say(console: Console, text: str) -> None:
    """Prints one line, whatever is in it."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def make_table(title: str = "", *, left: Sequence[str], right: Sequence[str] = ()) -> Table:
    """An empty table: texts to the left, numbers to the right."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=0 if title else (0, 1),
    )
    for number, column in enumerate(left):
        table.add_column(column, no_wrap=bool(title) and number == 0)
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table
