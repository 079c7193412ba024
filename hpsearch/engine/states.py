"""The states that trials of a search are in, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

INFEASIBLE = "infeasible"
DUPLICATE = "duplicate"

FINISHED = ("complete", "pruned", "failed")
"""What counts as one of the trials that were asked for; those in ASIDE never trained."""

ASIDE = (INFEASIBLE, DUPLICATE)
"""States of trials that never trained; each is the name of an attribute that says why, too."""

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trial_state(trial: FrozenTrial) -> str:
    """The state of a trial, as `TrialRecord` has it; of one that is not finished, as Optuna."""
    if trial.state.is_finished():
        for state in ASIDE:
            if state in trial.user_attrs:
                return state
    return _STATES[trial.state]


def left_to_do(states: Iterable[str], share: int) -> int:
    """How many trials of a family are still to be run, by the states of those that it has.

    Those in ASIDE are not counted, but when they are many, nothing more will be found.
    """
    states = list(states)
    if sum(state in ASIDE for state in states) >= most_aside(share):
        return 0
    return max(0, share - sum(state in FINISHED for state in states))


def most_aside(share: int) -> int:
    """After how many infeasible or doubled configurations a family of so many trials is given
    up.
    """
    return max(20, 5 * share)
