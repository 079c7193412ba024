"""How values are written for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hpsearch.names import printable
from hpsearch.results.units import UNITS as UNITS
from hpsearch.results.units import accuracy as accuracy
from hpsearch.results.units import duration as duration
from hpsearch.results.units import objective_difference as objective_difference
from hpsearch.results.units import objective_value as objective_value
from hpsearch.results.units import scaled as scaled

if TYPE_CHECKING:
    from hpsearch.training.objectives import Objective


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
