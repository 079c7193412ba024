"""What a search is for: an objective, or several, costs of the model among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import ConfigError
from hpsearch.training.costs import COSTS, Cost
from hpsearch.training.model import StagedModel
from hpsearch.training.objectives import OBJECTIVES, Objective, ValidationScores

Objectives = tuple[Objective, *tuple[Objective | Cost, ...]]
"""What a search is for: first the objective by which epochs and trials are ranked."""


def objective_rows(text: str) -> Objectives:
    """The rows of the objectives that are named in `text`, separated by commas.

    Raises:
        ConfigError: a name is unknown or given twice, or the first one is that of a cost: epochs,
            which cost the same, could not be ranked by it.
    """
    scores = {row.name: row for row in OBJECTIVES}
    rows: dict[str, Objective | Cost] = {**scores, **{row.name: row for row in COSTS}}
    names = [name.strip() for name in text.split(",")] if isinstance(text, str) else []
    if not names or names[0] not in scores:
        found = f" (the first of {text!r})" if len(names) > 1 else ""
        raise ConfigError(
            f"objective must be one of {', '.join(scores)}, but is "
            f"{repr(names[0]) if names else repr(text)}{found}; after a comma, it can be followed "
            f"by others of them, {', '.join(row.name for row in COSTS)}"
        )
    for number, name in enumerate(names):
        if name not in rows:
            raise ConfigError(
                f"objective {text!r} names {name!r}, which is unknown; known: {', '.join(rows)}"
            )
        if name in names[:number]:
            raise ConfigError(f"objective {text!r} names {name!r} twice")
    return scores[names[0]], *(rows[name] for name in names[1:])


def trial_values(
    rows: Sequence[Objective | Cost],
    best: ValidationScores,
    model: StagedModel,
    shape: ImageShape,
    device: torch.device,
) -> tuple[float, ...]:
    """The value of each row: of the trial's best epoch, or what its model costs.

    Args:
        model: as it was trained, on `device`; it is left as it is.
        shape: of the model's input.
    """
    return tuple(
        row.value(best) if isinstance(row, Objective) else row.measure(model, shape, device)
        for row in rows
    )
