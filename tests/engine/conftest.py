"""Fixtures of the tests of the engine."""

from __future__ import annotations

import optuna
import pytest


@pytest.fixture
def noted_calls(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int | None]]:
    """The epochs that trials report, and those after which the pruner is asked, as they happen."""
    reported: list[int] = []
    judged: list[int | None] = []
    report, should_prune = optuna.Trial.report, optuna.Trial.should_prune

    def noted_report(self: optuna.Trial, value: float, step: int) -> None:
        reported.append(step)
        report(self, value, step)

    def noted_prune(self: optuna.Trial) -> bool:
        judged.append(self.study.get_trials(deepcopy=False)[0].last_step)
        return should_prune(self)

    monkeypatch.setattr(optuna.Trial, "report", noted_report)
    monkeypatch.setattr(optuna.Trial, "should_prune", noted_prune)
    return reported, judged
