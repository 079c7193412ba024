import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.engine.samplers import (
    ReplayableTPESampler,
    make_pruner,
    make_sampler,
    startup_trials,
)


@pytest.mark.parametrize(
    ("share", "expected"), [(1, 3), (10, 3), (12, 3), (16, 4), (30, 7), (40, 10), (400, 10)]
)
def test_startup_grows_with_the_share(share: int, expected: int) -> None:
    assert startup_trials(share) == expected


def suggest(trial: optuna.Trial, parameters: int = 4) -> dict[str, object]:
    """A conditional space; asks for the first `parameters` of it only."""
    questions = [
        lambda: trial.suggest_categorical("kind", ["a", "b"]),
        lambda: trial.suggest_float("lr", 1e-5, 1.0, log=True),
        lambda: trial.suggest_int("layers", 1, 9),
        lambda: trial.suggest_float("momentum", 0, 1) if trial.params["kind"] == "b" else None,
    ]
    for question in questions[:parameters]:
        question()
    return trial.params


def value(params: dict[str, object]) -> float:
    return abs(float(params["lr"]) - 0.01) + float(params.get("momentum", 0.3))  # type: ignore[arg-type]


def new_study(seed: int = 0) -> optuna.Study:
    return optuna.create_study(sampler=ReplayableTPESampler(seed=seed, n_startup_trials=3))


def run(study: optuna.Study, trials: int) -> list[dict[str, object]]:
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, value(suggest(trial)))
    return [trial.params for trial in study.trials]


def test_a_seed_gives_the_same_trials_and_another_one_others() -> None:
    assert run(new_study(), 12) == run(new_study(), 12)
    assert run(new_study(), 12) != run(new_study(1), 12)


@pytest.mark.parametrize("asked", [0, 1, 2, 3])
@pytest.mark.parametrize("number", [1, 7])
def test_a_trial_broken_off_while_asking_goes_on_as_if_it_had_not_been(
    number: int, asked: int
) -> None:
    study = new_study()
    run(study, number)
    suggest(study.ask(), parameters=asked)
    # As a new process would: a new sampler, the stored trial.
    study.sampler = ReplayableTPESampler(seed=0, n_startup_trials=3)
    running = study.get_trials(states=(TrialState.RUNNING,))
    trial = optuna.Trial(study, running[0]._trial_id)
    study.tell(trial, value(suggest(trial)))
    assert run(study, 3) == run(new_study(), number + 4)


def test_after_the_startup_trials_parameters_are_modelled() -> None:
    study = optuna.create_study(sampler=make_sampler(seed=0, family="cnn", share=10))
    run(study, 3)
    trial = study.ask()
    assert set(trial.relative_params) >= {"kind", "lr", "layers"}


def test_infeasible_trials_are_no_startup_trials() -> None:
    """A model of infeasible trials alone would propose their like again and again."""
    study = new_study()
    kinds = []
    for _ in range(8):
        trial = study.ask()
        assert trial.relative_params == {}
        kinds.append(suggest(trial)["kind"])
        trial.set_constraint("too small", 1.0)
        study.tell(trial, state=TrialState.PRUNED)
    assert set(kinds) == {"a", "b"}
    run(study, 3)
    assert study.ask().relative_params


def test_families_draw_differently_from_one_seed() -> None:
    draws = [
        run(optuna.create_study(sampler=make_sampler(seed=0, family=name, share=10)), 1)
        for name in ("cnn", "mlp")
    ]
    assert draws[0] != draws[1]


def test_the_pruner_waits_for_startup_and_a_quarter_of_the_epochs() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(epochs=20, share=10))

    def pruned_at(values: list[float]) -> int | None:
        trial = study.ask()
        for step, reported in enumerate(values):
            trial.report(reported, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return step
        study.tell(trial, max(values))
        return None

    bad, good = [0.1] * 20, [0.9] * 20
    assert [pruned_at(good), pruned_at(bad), pruned_at(good)] == [None, None, None]
    assert pruned_at(bad) == 5
    assert pruned_at(good) is None
