"""What an ablation shows, as a figure: of each parameter the curves and outcomes of its values."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from hpsearch.engine.ablation import Ablation, Variation
from hpsearch.figures.ablation import VariedLine, ablation_figure
from hpsearch.figures.png import save_png
from hpsearch.results.ablation import chance_band, chance_note, outcome
from hpsearch.results.folder import writing

FIGURE = "ablation.png"


def ablation_picture(ablation: Ablation) -> Figure:
    """The figure of an ablation: for each parameter the curves and the outcomes of its values."""
    record = ablation.record
    return ablation_figure(
        {
            name: [_line(variation) for variation in variations]
            for name, variations in ablation.parameters.items()
        },
        objective=record.objective,
        title=f"{record.name}: {record.families[0]}, one parameter at a time",
        note=chance_note(ablation, drawn=True),
        band=chance_band(ablation),
    )


def _line(variation: Variation) -> VariedLine:
    trial, value = variation.trial, variation.value
    return VariedLine(
        value=value if isinstance(value, str) else float(value),
        curve={
            epoch: reported
            for epoch, reported in sorted((trial.reported if trial else {}).items())
            if math.isfinite(reported)
        },
        outcome=outcome(trial),
        state=trial.state if trial else "waiting",
        is_center=variation.is_center,
    )


def write_picture(ablation: Ablation, path: Path) -> None:
    """Writes the figure of an ablation as a PNG file, whole or not at all.

    Raises:
        SearchError: the file cannot be written.
    """
    picture = ablation_picture(ablation)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(picture, path)
