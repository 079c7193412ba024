import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, NopPruner, PatientPruner
from optuna.trial import FrozenTrial, TrialState

from hpsearch.engine.policy_options import AMPLE, Budget, Setting
from hpsearch.engine.pruners import DEFAULT_PRUNER, PRUNERS, PrunerInfo, check_pruner, make_pruner
from hpsearch.engine.space_filling import GridSampler
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.studies import _policy
from hpsearch.errors import SearchError

NAMES = [row.name for row in PRUNERS]
EPOCHS = 20
NEEDED: dict[str, dict[str, Any]] = {"threshold": {"lower": 0.5}}
"""What a pruner cannot do without."""


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of what earlier tests left behind, such as a killed thread's connection to a server.
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def new_study(name: str, *, direction: str = "maximize", **options: Any) -> optuna.Study:
    pruner = make_pruner(name, NEEDED.get(name, {}) | options, epochs=EPOCHS, share=10)
    return optuna.create_study(study_name="study", direction=direction, pruner=pruner)


def pruned_at(study: optuna.Study, values: list[float]) -> int | None:
    """After which epoch a trial with these values is stopped."""
    trial = study.ask()
    for step, reported in enumerate(values):
        trial.report(reported, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return step
    study.tell(trial, max(values))
    return None


GOOD, BAD = [0.9] * EPOCHS, [0.1] * EPOCHS
FALLING = [0.6 - 0.01 * epoch for epoch in range(EPOCHS)]


# What all pruners keep to


@pytest.mark.parametrize("name", NAMES)
def test_bad_trials_are_stopped_and_the_best_never(name: str) -> None:
    study = new_study(name)
    ends = [pruned_at(study, GOOD) for _ in range(4)]
    for rank in range(12):
        ends.append(pruned_at(study, [0.9 + rank / 100] * EPOCHS))
    assert ends == [None] * 16
    bad = [pruned_at(study, FALLING) for _ in range(8)]
    assert pruned_at(study, [1.1] * EPOCHS) is None
    if name == "none":
        assert bad == [None] * 8
    else:
        # Some of the brackets of Hyperband let trials go far.
        assert sum(end is not None for end in bad) >= (4 if name == "hyperband" else 8)
        assert all(end > 0 for end in bad if end is not None)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("none", "threshold")])
def test_a_loss_is_to_be_small(name: str) -> None:
    study = new_study(name, direction="minimize")
    for rank in range(12):
        assert pruned_at(study, [0.5 - rank / 100] * EPOCHS) is None
    rising = [0.8 + epoch / 100 for epoch in range(EPOCHS)]
    assert any(pruned_at(study, rising) is not None for _ in range(4))


@pytest.mark.parametrize("name", NAMES)
def test_a_pruner_of_its_own_for_each_question_changes_nothing(name: str) -> None:
    """As where a search is interrupted after every epoch."""

    def searched(*, resumed: bool) -> list[FrozenTrial]:
        study = new_study(name)
        for number in range(16):
            trial = study.ask()
            for step in range(EPOCHS):
                trial.report((number * 7 % 11) / 11 - step / 100, step)
                if resumed:
                    study.pruner = new_study(name).pruner
                    trial.should_prune()  # interrupted before it was told; then asked again
                    trial = optuna.Trial(study, trial._trial_id)
                if trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, 0.5)
        return study.trials

    def told(trials: list[FrozenTrial]) -> list[Any]:
        return [(trial.state, trial.last_step) for trial in trials]

    assert told(searched(resumed=False)) == told(searched(resumed=True))


# Single pruners


def test_the_median_waits_for_startup_and_a_quarter_of_the_epochs() -> None:
    study = new_study(DEFAULT_PRUNER)
    assert [pruned_at(study, values) for values in (GOOD, BAD, GOOD)] == [None, None, None]
    assert pruned_at(study, BAD) == 5
    assert pruned_at(study, GOOD) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n_startup_trials": 4}, None),
        ({"n_warmup_steps": 2}, 2),
        ({"n_warmup_steps": 0, "interval_steps": 3}, 0),
        ({"n_min_trials": 4}, None),
    ],
)
def test_settings_override_the_defaults(options: dict[str, int], expected: int | None) -> None:
    study = new_study("median", **options)
    for _ in range(3):
        pruned_at(study, GOOD)
    assert pruned_at(study, BAD) == expected


def test_a_percentile_keeps_fewer_than_the_median() -> None:
    def stopped(name: str, **options: Any) -> list[bool]:
        study = new_study(name, n_startup_trials=0, **options)
        for rank in range(8):
            study.add_trial(
                optuna.trial.create_trial(
                    value=rank / 8, intermediate_values=dict.fromkeys(range(EPOCHS), rank / 8)
                )
            )
        ranked = []
        for rank in range(8):
            trial = study.ask()
            trial.report(rank / 8 + 0.01, 10)
            ranked.append(trial.should_prune())
        return ranked

    assert stopped("median").count(True) == 4
    assert stopped("percentile").count(True) == 6
    assert stopped("percentile", percentile=50.0) == stopped("median")


def test_a_patient_pruner_stops_what_is_below_the_median_and_gets_worse() -> None:
    study = new_study("patient", patience=3)
    for _ in range(3):
        pruned_at(study, GOOD)
    assert pruned_at(study, [epoch / 100 for epoch in range(EPOCHS)]) is None
    peaked = [*[epoch / 100 for epoch in range(9)], *[0.01] * 11]
    assert pruned_at(study, peaked) == 12
    assert pruned_at(new_study("patient", patience=3, min_delta=0.5), peaked) is None


def test_thresholds() -> None:
    both = {"n_warmup_steps": 3, "lower": 0.2, "upper": 0.8}
    for values, expected in ((BAD, 3), (GOOD, 3), ([0.5] * EPOCHS, None), ([math.nan] * 5, 3)):
        assert pruned_at(new_study("threshold", **both), values) == expected
    assert pruned_at(new_study("threshold", lower=0), BAD) is None
    for options, problem in (
        ({}, "one of lower and upper must be set"),
        ({"n_warmup_steps": 3}, "one of lower and upper must be set"),
        ({"lower": 1, "upper": 0.5}, "lower must be below upper, but they are 1 and 0.5"),
    ):
        with pytest.raises(SearchError, match=f"pruner threshold: {problem}"):
            check_pruner("threshold", options)


def test_halving_lets_one_of_three_go_on() -> None:
    study = new_study("halving", min_resource=2)
    trials = [study.ask() for _ in range(9)]
    survivors = []
    for rank, trial in enumerate(trials):
        for step in range(3):
            trial.report(rank / 9, step)
        survivors.append(not trial.should_prune())
    assert survivors[-1]
    trial = study.ask()
    trial.report(0.5, 2)
    assert trial.should_prune()
    trial = study.ask()
    trial.report(0.0, 1)
    assert not trial.should_prune()


@pytest.mark.parametrize("name", ["hyperband", "halving"])
def test_trials_must_be_long_enough_for_the_first_step(name: str) -> None:
    check_pruner(name, {"min_resource": 21})
    check_pruner(name, {"min_resource": 20}, epochs=20)
    for epochs in (1, 2, 5, 20):
        make_pruner(name, epochs=epochs, share=1)
    text = "min_resource must be at most the 20 epochs of a trial, but is 21"
    with pytest.raises(SearchError, match=text):
        check_pruner(name, {"min_resource": 21}, epochs=20)
    with pytest.raises(SearchError, match=text):
        make_pruner(name, {"min_resource": 21}, epochs=20, share=10)
    with pytest.raises(SearchError, match=text):
        StudySpec(pruner=name, pruner_options={"min_resource": 21}, epochs=20)
    StudySpec(
        pruner=name,
        pruner_options={"min_resource": 21},
        epochs=20,
        overrides={"cnn.epochs": 40},
    )


def test_hyperband_has_its_brackets_in_a_process_that_has_asked_nothing_yet(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    pruner = make_pruner("hyperband", epochs=27, share=200)
    study = optuna.create_study(study_name="search/cnn", storage=url, pruner=pruner)
    for _ in range(30):
        study.ask()
    script = (
        "import sys, optuna\n"
        "from hpsearch.engine.pruners import make_pruner\n"
        "pruner = make_pruner('hyperband', epochs=27, share=200)\n"
        "study = optuna.load_study(study_name='search/cnn', storage=sys.argv[1], pruner=pruner)\n"
        "print([pruner._get_bracket_id(study, trial) for trial in study.trials])\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, check=True
    )
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    here = [pruner._get_bracket_id(study, trial) for trial in study.trials]
    assert there.stdout.strip() == str(here)
    assert set(here) == {0, 1, 2, 3}


# The table


SETTINGS = [(row, setting) for row in PRUNERS for setting in row.settings]


def wrong_values(setting: Setting) -> list[Any]:
    wrong: list[Any] = ["3", True, None, math.nan, math.inf]
    wrong += [setting.low - 1] if setting.low > -math.inf else []
    wrong += [setting.high + 1] if setting.high < math.inf else []
    return wrong + ([2.5] if setting.kind is int else [])


@pytest.mark.parametrize(
    ("row", "setting"), SETTINGS, ids=[f"{row.name}-{setting.name}" for row, setting in SETTINGS]
)
def test_a_default_is_allowed_and_what_is_not_is_refused(row: PrunerInfo, setting: Setting) -> None:
    for budget in (Budget(share=1, epochs=1), Budget(share=1000, epochs=1000), AMPLE):
        default = setting.default_for(budget)
        assert setting.allows(default) or (row.name == "threshold" and default is None)
    assert setting.help
    assert setting.default_text
    for value in wrong_values(setting):
        with pytest.raises(SearchError) as error:
            check_pruner(row.name, NEEDED.get(row.name, {}) | {setting.name: value})
        assert str(error.value) == (
            f"{setting.name} of pruner {row.name} must be {setting.rule}, but is {value!r}"
        )


def test_defaults() -> None:
    defaults = {
        row.name: {s.name: s.default_for(Budget(share=40, epochs=60)) for s in row.settings}
        for row in PRUNERS
    }
    ranked = {"n_startup_trials": 10, "n_warmup_steps": 15, "interval_steps": 1, "n_min_trials": 1}
    assert defaults == {
        "median": ranked,
        "percentile": {"percentile": 25.0, **ranked},
        "hyperband": {"min_resource": 2, "reduction_factor": 3, "bootstrap_count": 0},
        "halving": {
            "min_resource": 6,
            "reduction_factor": 3,
            "min_early_stopping_rate": 0,
            "bootstrap_count": 0,
        },
        "patient": {"patience": 6, "min_delta": 0.0, **ranked},
        "threshold": {"lower": None, "upper": None, "n_warmup_steps": 15, "interval_steps": 1},
        "none": {},
    }
    assert DEFAULT_PRUNER == StudySpec().pruner == NAMES[0]


def test_what_is_unknown_is_named_with_what_is_known() -> None:
    with pytest.raises(SearchError, match=f"one of {', '.join(NAMES)}, but is 'wilcoxon'"):
        check_pruner("wilcoxon", {})
    with pytest.raises(SearchError, match="median has no setting 'lower'; it has n_startup_trials"):
        make_pruner("median", {"lower": 0.5}, epochs=20, share=10)
    with pytest.raises(SearchError, match="pruner none has no setting 'lower'; it has no settings"):
        StudySpec(pruner="none", pruner_options={"lower": 0.5})


@pytest.mark.parametrize(
    ("objective", "epochs", "expected"),
    [
        ("val_accuracy", (20, 20), PatientPruner),
        ("val_accuracy", (10, 20), NopPruner),
        ("val_accuracy,params", (20, 20), NopPruner),
    ],
)
def test_a_study_prunes_only_what_can_be_compared(
    objective: str, epochs: tuple[int, int], expected: type[BasePruner]
) -> None:
    spec = StudySpec(
        objective=objective, sampler="grid", sampler_options={"points": 4}, pruner="patient"
    )
    data: Any = SimpleNamespace(epochs={"cnn": epochs})
    policy = _policy(spec, "cnn", 10, data)
    assert type(policy["pruner"]) is expected
    assert isinstance(policy["sampler"], GridSampler)


def test_a_study_refuses_a_pruner_that_its_own_epochs_do_not_fit() -> None:
    options = {"min_resource": 21}
    spec = StudySpec(pruner="halving", pruner_options=options, overrides={"epochs": 20})
    data: Any = SimpleNamespace(epochs={"cnn": (20, 20)})
    with pytest.raises(SearchError, match="at most the 20 epochs of a trial, but is 21"):
        _policy(spec, "cnn", 10, data)
