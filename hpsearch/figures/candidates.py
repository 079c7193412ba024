"""What configurations were worth in a search, beside what they give again, as a picture."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hpsearch.figures._canvas import BLUE, ORANGE, font_families, new_figure, tidy, write_title
from hpsearch.names import printable
from hpsearch.training.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidateValues:
    """One configuration.

    Attributes:
        searched: its value in the search.
        values: those of its trainings on other divisions of the data; none where they failed.
    """

    name: str
    searched: float
    values: tuple[float, ...]


def candidates_figure(
    candidates: Sequence[CandidateValues], *, objective: Objective, title: str
) -> Figure:
    """Draws a line for each candidate: its value in the search, each fold's value, and their mean
    with its standard error.

    Args:
        candidates: the search's best first, at least one.
        title: above the picture.
    """
    figure = new_figure(8.5, 1.9 + 0.42 * len(candidates))
    write_title(figure, title, letters=80)
    axes = figure.subplots()
    first = next((place for place, candidate in enumerate(candidates) if candidate.values), 0)
    for place, candidate in enumerate(candidates):
        values = candidate.values
        axes.plot(
            [candidate.searched],
            [place],
            "D",
            color=ORANGE,
            markersize=8,
            label="in the search" if place == 0 else None,
        )
        if not values:
            continue
        mean = statistics.fmean(values)
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        axes.annotate(
            "",
            (mean, place),
            (candidate.searched, place),
            arrowprops={"arrowstyle": "-", "color": ORANGE, "alpha": 0.5},
        )
        axes.plot(
            values,
            [place] * len(values),
            "|",
            color=BLUE,
            markersize=11,
            alpha=0.6,
            label="each fold" if place == first else None,
        )
        axes.errorbar(
            [mean],
            [place],
            xerr=[error],
            fmt="o",
            color=BLUE,
            capsize=4,
            label="mean of the folds, standard error" if place == first else None,
        )
    axes.set_yticks(
        range(len(candidates)),
        [printable(candidate.name) for candidate in candidates],
        parse_math=False,
        fontfamily=font_families(),
    )
    axes.set_ylim(len(candidates) - 0.4, -0.6)
    axes.set_ylabel("the search's best first")
    axes.set_xlabel(objective.label)
    if objective.is_share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    tidy(axes)
    return figure
