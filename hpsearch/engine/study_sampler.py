"""What all samplers of a search have in common."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial


class StudySampler(BaseSampler):
    """A sampler of one family's study."""

    def exhausted(self, study: optuna.Study, *, running: bool = False) -> bool:
        """Whether nothing is left to try; of all samplers but the grid, something always is.

        Args:
            running: count what running trials try as tried: nothing is left to begin.
        """
        del study, running
        return False


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials by number, not copied; under Hyperband those of all brackets, which
    `study.get_trials` leaves out.
    """
    return study._get_trials(deepcopy=False)
