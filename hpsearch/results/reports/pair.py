"""The best two models of a report, compared on the same test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.errors import DataError
from hpsearch.figures.page import safe, table
from hpsearch.results.compare import Comparison, compare
from hpsearch.results.folder import PREDICTIONS, read_metrics
from hpsearch.results.reports.cells import facts
from hpsearch.training.units import accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models on the same test images, and what they are called."""

    first: str
    second: str
    comparison: Comparison


def best_pair(rows: Sequence[Mapping[str, Any]]) -> Pair | None:
    """Compares the first two of a leaderboard that were tested, where what was written then still
    lies there; None where there are no two, or they were tested on different images.
    """
    tested = [row for row in rows if row["test"] is not None and _is_there(row)]
    if len(tested) < 2:
        return None
    first, second = tested[:2]
    try:
        result = compare(first["test"]["folder"], second["test"]["folder"])
    except DataError:
        return None
    names = [f"{row['search']} {row['trial']}" for row in (first, second)]
    return Pair(first=names[0], second=names[1], comparison=result)


def pair_section(pair: Pair) -> Iterator[str]:
    """The part of the page about it."""
    result, first, second = pair.comparison, safe(pair.first), safe(pair.second)
    yield "<h2>The best two on the same test images</h2>"
    yield f"<p>{safe(result.conclusion)}</p>"
    yield from (f"<p>Warning: {safe(warning)}</p>" for warning in result.warnings)
    interval = "–"
    if result.difference_95 is not None:
        low, high = result.difference_95
        interval = f"{100 * low:+.2f} to {100 * high:+.2f} points (paired bootstrap)"
    yield facts(
        [
            (f"first: {first}", accuracy(result.first_accuracy)),
            (f"second: {second}", accuracy(result.second_accuracy)),
            ("second minus first", f"{100 * result.difference:+.2f} points"),
            ("its 95 % interval", interval),
            (safe(result.method), f"p = {result.p_value:.3g}"),
        ]
    )
    counts = [
        ("first right", f"{result.both_right:,}", f"{result.only_first_right:,}"),
        ("first wrong", f"{result.only_second_right:,}", f"{result.both_wrong:,}"),
    ]
    heads = (f"of {result.images:,} test images", "second right", "second wrong")
    yield f'<div class="narrow">{table(heads, counts, numbers=(1, 2))}</div>'


def _is_there(row: Mapping[str, Any]) -> bool:
    """Whether the folder still holds this very result: another export may have replaced it."""
    folder = Path(row["test"]["folder"])
    if not (folder / PREDICTIONS).is_file():
        return False
    metrics = read_metrics(folder)
    try:
        found = (metrics["search"], metrics["trial"], metrics["test"]["accuracy"])
    except (KeyError, TypeError):
        return False
    return bool(found == (row["search"], row["trial"], row["test"]["accuracy"]))
