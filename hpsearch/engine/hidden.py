"""What a trial stores for hpsearch alone: as system attributes of Optuna's, since all user
attributes are columns of the dashboard's table.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial

CONFIG = "config"
"""What the trial trains with."""
SETTING = "setting"
"""How it is run, and what decided that."""


def hidden_key(key: str) -> str:
    """The system attribute that has it."""
    return f"hpsearch:{key}"


def hide(study: optuna.Study, trial_id: int, key: str, value: Any) -> None:
    """Stores a value of plain JSON types."""
    study._storage.set_trial_system_attr(trial_id, hidden_key(key), value)


def hidden(trial: FrozenTrial, key: str) -> Any:
    """What was stored, or None; earlier searches have it among the user attributes."""
    return trial.system_attrs.get(hidden_key(key), trial.user_attrs.get(key))
