"""Which trials of a search for several objectives no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpsearch.training.costs import Cost
from hpsearch.training.objectives import Objective


def pareto_front(
    rows: Sequence[Objective | Cost], points: Sequence[Sequence[float | None]]
) -> list[int]:
    """The places in `points` of those that no other dominates: is as good in each objective, and
    better in one. Of points that are level, all are there.

    Args:
        points: a value for each of `rows`. One without all of these, or with one that is not a
            number, is left out, and dominates nothing.
    """
    known = (
        (place, [value for value in point if value is not None and not math.isnan(value)])
        for place, point in enumerate(points)
    )
    signs = [1 if row.direction == "maximize" else -1 for row in rows]
    signed = [
        (tuple(sign * value for sign, value in zip(signs, values, strict=True)), place)
        for place, values in known
        if len(values) == len(rows)
    ]
    front: list[tuple[tuple[float, ...], int]] = []
    # Whatever dominates a point comes before it in this order; and if that is dominated, too, then
    # by one in the front, which dominates both.
    for point, place in sorted(signed, key=lambda item: item[0], reverse=True):
        if not any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True))
            for other, _ in front
        ):
            front.append((point, place))
    return sorted(place for _, place in front)
