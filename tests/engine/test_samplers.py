import importlib
import itertools
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpsearch.engine.policy_options import AMPLE, Budget, Setting
from hpsearch.engine.pruners import make_pruner
from hpsearch.engine.replayable import MOST_DUPLICATES, ReplayableSampler
from hpsearch.engine.samplers import (
    DEFAULT_SAMPLER,
    SAMPLERS,
    SamplerInfo,
    check_sampler,
    exhausted,
    make_sampler,
)
from hpsearch.engine.space_filling import grid_values, value_at
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.states import DUPLICATE, INFEASIBLE
from hpsearch.engine.study_sampler import StudySampler
from hpsearch.errors import SearchError
from hpsearch.training.seeds import derive_seed

NAMES = [row.name for row in SAMPLERS]
MODELS = ["tpe", "gp", "nsga2"]
OPTIONS: dict[str, dict[str, Any]] = {
    "tpe": {"n_startup_trials": 3},
    "gp": {"n_startup_trials": 3},
    "nsga2": {"population_size": 3},
}
QUESTIONS = 4


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


def sampler_of(name: str, seed: int = 0, *, objectives: int = 1, **options: Any) -> StudySampler:
    return make_sampler(
        name,
        OPTIONS.get(name, {}) | options,
        seed=seed,
        family="cnn",
        share=20,
        objectives=objectives,
    )


def new_study(name: str = "tpe", seed: int = 0, **options: Any) -> optuna.Study:
    return optuna.create_study(study_name="study", sampler=sampler_of(name, seed, **options))


def suggest(trial: optuna.Trial, parameters: int = QUESTIONS) -> dict[str, Any]:
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


def value(params: dict[str, Any]) -> float:
    return abs(float(params["lr"]) - 0.01) + float(params.get("momentum", 0.3))


ENDS = ("complete", "complete", "running", "pruned", "complete", "infeasible", "failed", "complete")


def end(study: optuna.Study, trial: optuna.Trial, how: str) -> None:
    """Ends a trial as the engine does."""
    if how == "running":
        return
    if how == "complete":
        study.tell(trial, value(trial.params))
        return
    if how == "pruned":
        trial.report(value(trial.params), 0)
    if how == "infeasible":
        trial.set_user_attr(INFEASIBLE, "too small")
        trial.set_constraint(INFEASIBLE, 1.0)
    if how == "duplicate":
        trial.set_user_attr(DUPLICATE, "of another")
    failed = how in ("failed", "duplicate")
    study.tell(trial, state=TrialState.FAIL if failed else TrialState.PRUNED)


def run(study: optuna.Study, trials: int, ends: tuple[str, ...] = ("complete",)) -> list[Any]:
    for _, how in zip(range(trials), itertools.cycle(ends), strict=False):
        trial = study.ask()
        suggest(trial)
        end(study, trial, how)
    return [trial.params for trial in study.trials]


@pytest.fixture(scope="module")
def mixed() -> dict[str, list[FrozenTrial]]:
    """For each sampler the trials of a search in which they end in all ways."""
    searches = {}
    for name in NAMES:
        study = new_study(name)
        run(study, 12, ENDS)
        searches[name] = study.trials
    return searches


def broken_off(name: str, trials: list[FrozenTrial], asked: int) -> dict[str, Any]:
    """What a trial after `trials` draws when it is broken off after `asked` questions."""
    study = new_study(name)
    study.add_trials(trials)
    suggest(study.ask(), parameters=asked)
    # As a new process would: a new sampler, the stored trial.
    study.sampler = sampler_of(name)
    return suggest(optuna.Trial(study, study.trials[-1]._trial_id))


# What all samplers keep to


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [1, 5, 9, 11])
def test_a_trial_broken_off_while_asking_goes_on_as_if_it_had_not_been(
    name: str, number: int, mixed: dict[str, list[FrozenTrial]]
) -> None:
    trials = mixed[name]
    for asked in range(QUESTIONS + 1):
        assert broken_off(name, trials[:number], asked) == trials[number].params, asked


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_of_its_own_for_each_question_changes_nothing(
    name: str, mixed: dict[str, list[FrozenTrial]]
) -> None:
    study = new_study(name)
    for number, how in zip(range(8), ENDS, strict=True):
        study.sampler = sampler_of(name)
        trial = study.ask()
        for asked in range(QUESTIONS):
            study.sampler = sampler_of(name)
            suggest(trial, asked + 1)
        end(study, trial, how)
        assert trial.params == mixed[name][number].params


@pytest.mark.parametrize("name", NAMES)
def test_trials_asked_in_turn_do_not_mix(name: str) -> None:
    """One sampler, two trials whose questions alternate: as with a sampler each."""
    pairs = []
    for shared in (True, False):
        study = new_study(name)
        run(study, 7)
        trials = [study.ask(), study.ask()]
        samplers = [sampler_of(name), sampler_of(name)]
        for asked in range(QUESTIONS):
            for trial, sampler in zip(trials, samplers, strict=True):
                study.sampler = samplers[0] if shared else sampler
                suggest(trial, asked + 1)
        pairs.append([trial.params for trial in trials])
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize("name", NAMES)
def test_values_are_within_their_ranges(name: str, mixed: dict[str, list[FrozenTrial]]) -> None:
    for trial in mixed[name]:
        assert {"kind", "lr", "layers"} <= trial.params.keys()
        assert ("momentum" in trial.params) == (trial.params["kind"] == "b")
        for parameter, distribution in trial.distributions.items():
            stored = distribution.to_internal_repr(trial.params[parameter])
            assert distribution._contains(stored)
        assert isinstance(trial.params["layers"], int)
    assert {trial.params["kind"] for trial in mixed[name]} == {"a", "b"}


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_or_family_gives_other_trials(
    name: str, mixed: dict[str, list[FrozenTrial]]
) -> None:
    first = [trial.params for trial in mixed[name][:3]]
    assert run(new_study(name, seed=1), 3, ENDS) != first
    other = make_sampler(name, OPTIONS.get(name, {}), seed=0, family="mlp", share=20)
    assert run(optuna.create_study(sampler=other), 3, ENDS) != first


@pytest.mark.parametrize("name", NAMES)
def test_sqlite_gives_what_memory_gives_and_goes_on_in_another_process(
    name: str, tmp_path: Path, mixed: dict[str, list[FrozenTrial]]
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(study_name="study", storage=url)
    for how in ENDS:
        study = optuna.load_study(study_name="study", storage=url, sampler=sampler_of(name))
        run(study, 1, (how,))
    assert [t.params for t in study.trials] == [t.params for t in mixed[name][: len(ENDS)]]


@pytest.mark.parametrize("name", NAMES)
def test_under_hyperband_a_search_that_goes_on_is_the_same(name: str) -> None:
    def searched(*, resumed: bool) -> list[FrozenTrial]:
        study = new_study(name)
        for number in range(12):
            if resumed or not number:
                study.sampler = sampler_of(name)
                study.pruner = make_pruner("hyperband", epochs=9, share=200)
            trial = study.ask()
            suggest(trial)
            for step in range(9):
                trial.report(value(trial.params) / (step + 1), step)
                if trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, value(trial.params))
        return study.trials

    once, again = searched(resumed=False), searched(resumed=True)
    assert [trial.params for trial in once] == [trial.params for trial in again]
    assert {trial.state for trial in once} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("name", NAMES)
def test_several_objectives(name: str) -> None:
    def searched(ends: int) -> list[Any]:
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=sampler_of(name, objectives=2)
        )
        for number in range(ends):
            study.sampler = sampler_of(name, objectives=2)
            trial = study.ask()
            params = suggest(trial)
            if number == 1:
                end(study, trial, "infeasible")
            else:
                study.tell(trial, [params["layers"] / 9, value(params)])
        return [trial.params for trial in study.trials]

    trials = searched(9)
    assert searched(9) == trials
    assert len({str(params) for params in trials}) > 5


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_costs_a_few_readings_and_no_copies(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(name)
    run(study, 8, ENDS)
    reads: list[bool] = []
    read = optuna.storages.InMemoryStorage.get_all_trials

    def noted(self: Any, study_id: int, deepcopy: bool = True, states: Any = None) -> Any:
        reads.append(deepcopy)
        return read(self, study_id, deepcopy=deepcopy, states=states)

    monkeypatch.setattr(optuna.storages.InMemoryStorage, "get_all_trials", noted)
    suggest(study.ask())
    assert not any(reads)
    assert len(reads) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_enqueued_values_are_kept_and_the_rest_drawn(name: str) -> None:
    study = new_study(name)
    study.enqueue_trial({"kind": "b", "lr": 0.0123})
    run(study, 5)
    first = study.trials[0].params
    assert (first["kind"], first["lr"]) == ("b", 0.0123)
    assert first.keys() == {"kind", "lr", "layers", "momentum"}


@pytest.mark.parametrize("name", NAMES)
def test_only_a_grid_is_ever_exhausted(name: str) -> None:
    study = new_study(name)

    def one(trial: optuna.Trial) -> float:
        return float(trial.suggest_categorical("x", [1, 2]))

    assert not exhausted(study)
    for _ in range(2):
        trial = study.ask()
        study.tell(trial, one(trial))
    assert exhausted(study) == (name == "grid")
    assert not exhausted(optuna.create_study())  # a sampler of Optuna's own


# Models


def plain_tpe(*parts: int | str, n_startup_trials: int) -> optuna.samplers.TPESampler:
    """Optuna's TPE with the seed that the draw of one trial has had since the first version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.samplers.TPESampler(
            n_startup_trials=n_startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=derive_seed(derive_seed(0, "cnn"), *parts) % 2**32,
        )


def test_tpe_draws_what_it_drew_in_the_first_version() -> None:
    study = new_study()
    trial = study.ask()
    alone = plain_tpe("independent", 0, "lr", n_startup_trials=3)
    lr = FloatDistribution(1e-5, 1.0, log=True)
    assert trial.suggest_float("lr", 1e-5, 1.0, log=True) == alone.sample_independent(
        study, study.trials[0], "lr", lr
    )
    study.tell(trial, state=TrialState.FAIL)
    run(study, 10, ENDS)
    trial = study.ask()
    infeasible = sum(ends == "infeasible" for ends in ENDS)
    together = plain_tpe("relative", trial.number, n_startup_trials=3 + infeasible)
    frozen = study.trials[trial.number]
    space = together.infer_relative_search_space(study, frozen)
    assert trial.relative_params == together.sample_relative(study, frozen, space) != {}


@pytest.mark.parametrize("name", MODELS)
def test_after_the_startup_trials_parameters_are_modelled(name: str) -> None:
    study = new_study(name)
    for _ in range(3):
        trial = study.ask()
        assert trial.relative_params == {}
        suggest(trial)
        end(study, trial, "complete")
    study.sampler = sampler_of(name)
    # One parameter in two or so mutates in NSGA-II, so that several trials are looked at.
    modelled = {key for _ in range(8) for key in study.ask().relative_params}
    assert modelled >= {"kind", "lr", "layers"}


@pytest.mark.parametrize("name", MODELS)
def test_a_process_that_only_claims_sees_what_others_finish(name: str, tmp_path: Path) -> None:
    """Claimed trials never go through `study.ask`, where Optuna forgets what it has read."""
    url = f"sqlite:///{tmp_path}/study.db"
    finisher = optuna.create_study(study_name="s", storage=url, sampler=sampler_of(name))
    claimer = optuna.load_study(study_name="s", storage=url, sampler=sampler_of(name))

    def claimed() -> optuna.Trial:
        return optuna.Trial(claimer, claimer._storage.create_new_trial(claimer._study_id))

    assert claimed().relative_params == {}
    run(finisher, 4)
    assert any(claimed().relative_params for _ in range(4))


def test_infeasible_trials_are_no_startup_trials() -> None:
    """A model of infeasible trials alone would propose their like again and again."""
    study = new_study()
    kinds = []
    for _ in range(8):
        trial = study.ask()
        assert trial.relative_params == {}
        kinds.append(suggest(trial)["kind"])
        end(study, trial, "infeasible")
    assert set(kinds) == {"a", "b"}
    run(study, 3)
    assert study.ask().relative_params


@pytest.mark.parametrize("name", MODELS)
def test_after_some_duplicates_in_a_row_one_trial_is_drawn_at_random(name: str) -> None:
    study = new_study(name)
    run(study, 8)
    run(study, MOST_DUPLICATES - 1, ("duplicate",))
    assert any(study.ask().relative_params for _ in range(3))  # running: they end no row
    run(study, 1, ("duplicate",))
    trial = study.ask()
    assert trial.relative_params == {}
    random = optuna.samplers.RandomSampler(
        seed=derive_seed(derive_seed(0, "cnn"), "independent", trial.number, "lr") % 2**32
    )
    study.sampler = sampler_of(name)  # which was not asked for the trial before
    assert suggest(trial)["lr"] == random.sample_independent(
        study, study.trials[trial.number], "lr", FloatDistribution(1e-5, 1.0, log=True)
    )
    end(study, trial, "complete")
    assert any(study.ask().relative_params for _ in range(3))


def test_duplicates_that_came_later_change_nothing_for_a_trial_that_goes_on() -> None:
    study = new_study()
    run(study, 8)
    first = study.ask()
    drawn = suggest(first, 2)
    run(study, MOST_DUPLICATES, ("duplicate",))
    study.sampler = sampler_of("tpe")
    assert optuna.Trial(study, first._trial_id).relative_params
    assert suggest(optuna.Trial(study, first._trial_id), 2) == drawn


def test_a_model_gets_through_a_small_space() -> None:
    """Twelve configurations, each proposed at last, though the model likes few of them best."""
    study = new_study()
    seen: set[str] = set()
    for _ in range(120):
        trial = study.ask()
        params = {"x": trial.suggest_int("x", 1, 4), "y": trial.suggest_int("y", 1, 3)}
        if str(params) in seen:
            end(study, trial, "duplicate")
        else:
            seen.add(str(params))
            study.tell(trial, float(params["x"] + params["y"]))
    assert len(seen) == 12


def gp_study(values: list[float], how: str) -> optuna.Study:
    """Some good trials in the left half of a range and some others in the right half."""
    study = new_study("gp")
    for x in (0.05, 0.15, 0.25, 0.35, 0.45):
        study.enqueue_trial({"x": x})
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, 1 - x)
    for x, reported in zip((0.55, 0.65, 0.75, 0.85, 0.95), values, strict=True):
        study.enqueue_trial({"x": x})
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(reported, 0)
        if how == "infeasible":
            trial.set_constraint(INFEASIBLE, 1.0)
        study.tell(trial, state=TrialState.PRUNED)
    return study


@pytest.mark.parametrize(
    ("reported", "how", "right"),
    [
        ([2.0, 3.0, 4.0, 5.0, 6.0], "pruned", False),
        ([0.4, 0.3, 0.2, 0.1, 0.0], "pruned", True),
        ([0.4, 0.3, 0.2, 0.1, 0.0], "infeasible", False),
    ],
)
def test_a_gaussian_process_learns_from_trials_without_a_value(
    reported: list[float], how: str, right: bool
) -> None:
    """The complete trials alone say: the further right the better."""
    study = gp_study(reported, how)
    assert (study.ask().suggest_float("x", 0, 1) > 0.6) is right


def test_a_gaussian_process_models_so_many_trials_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modelled: list[list[FrozenTrial]] = []

    def noted(self: Any, study: Any, trials: Any, running: Any, space: Any) -> dict[str, Any]:
        modelled.append(trials)
        return {}

    monkeypatch.setattr(optuna.samplers.GPSampler, "_sample_relative_impl", noted)
    study = new_study("gp", n_modelled_trials=10)
    for number in range(30):
        study.add_trial(
            optuna.trial.create_trial(
                value=float(abs(number - 8)),
                params={"x": number / 30},
                distributions={"x": FloatDistribution(0, 1)},
            )
        )
    study.ask().suggest_float("x", 0, 1)
    assert [trial.number for trial in modelled[0]] == [6, 7, 8, 9, 10, 25, 26, 27, 28, 29]


def test_no_package_is_recommended_to_the_user() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("optuna").addHandler(handler)
    try:
        importlib.reload(importlib.import_module("optuna._gp.batched_lbfgsb"))
    finally:
        logging.getLogger("optuna").removeHandler(handler)
    assert not records


def test_what_is_tried_first_is_of_the_first_generation() -> None:
    study = new_study("nsga2")
    study.enqueue_trial({"kind": "a", "lr": 0.01, "layers": 3})
    run(study, 5)
    key = "GenerationSampler:generation"
    generations = [trial.system_attrs[key] for trial in study.trials]
    assert generations == [0, 0, 0, 1, 1]


# A grid


def grid_space(trial: optuna.Trial) -> None:
    """3 x (1 + 2 x 3) = 21 combinations with 3 points: sixes of them under b, threes under a."""
    trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    if trial.suggest_categorical("kind", ["a", "b"]) == "b":
        trial.suggest_categorical("nesterov", [True, False])
        trial.suggest_int("layers", 1, 9)
    trial.suggest_float("fixed", 1.0, 1.0)


GRID = {
    (lr, *rest, 1.0)
    for lr in (1e-4, 1e-3, 1e-2)
    for rest in [("a",), *(("b", n, layers) for n in (True, False) for layers in (1, 5, 9))]
}


def grid_key(params: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(round(v, 9) if isinstance(v, float) else v for v in params.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_grid_has_every_combination_once_however_trials_end(seed: int) -> None:
    study = new_study("grid", seed)
    ends = itertools.cycle(["complete", "pruned", "failed", "infeasible"])
    tried = []
    while not exhausted(study):
        study.sampler = sampler_of("grid", seed)
        trial = study.ask()
        grid_space(trial)
        tried.append(grid_key(trial.params))
        how = next(ends)
        if how == "complete":
            study.tell(trial, 0.0)
        else:
            trial.set_user_attr("lr", 1)
            study.tell(trial, state=TrialState.FAIL if how == "failed" else TrialState.PRUNED)
        assert len(tried) <= len(GRID)
    assert Counter(tried) == Counter(GRID)
    assert tried != sorted(tried, key=str)


def test_a_grid_does_not_propose_what_runs_and_ends_when_that_has_ended() -> None:
    study = new_study("grid")
    trials = []
    for _ in GRID:
        assert not study.sampler.exhausted(study, running=True)  # type: ignore[attr-defined]
        trials.append(study.ask())
        grid_space(trials[-1])
    assert {grid_key(trial.params) for trial in trials} == GRID
    assert exhausted(study, running=True)
    assert not exhausted(study)
    # What is proposed all the same is a duplicate, and ends nothing.
    again = study.ask()
    grid_space(again)
    assert grid_key(again.params) in GRID
    end(study, again, "duplicate")
    last = next(trial for trial in trials if trial.params == again.params)
    for trial in trials:
        if trial is not last:
            study.tell(trial, 0.0)
    assert not exhausted(study)
    study.tell(last, 0.0)
    assert exhausted(study)


def test_configurations_beside_a_grid_do_not_count() -> None:
    study = new_study("grid")
    study.enqueue_trial({"lr": 5e-3, "kind": "b", "nesterov": True, "layers": 5})
    study.enqueue_trial({"lr": 1e-3, "kind": "b", "nesterov": True, "layers": 4})
    tried = []
    while not exhausted(study):
        trial = study.ask()
        grid_space(trial)
        tried.append(grid_key(trial.params))
        study.tell(trial, 0.0)
    assert set(tried[2:]) == GRID
    assert len(tried) == len(GRID) + 2


def test_a_trial_that_broke_off_at_once_does_not_exhaust_a_grid() -> None:
    study = new_study("grid")
    study.tell(study.ask(), state=TrialState.FAIL)
    assert not exhausted(study)
    study.ask()
    assert not exhausted(study)


def test_a_space_without_parameters_is_exhausted_by_one_trial() -> None:
    study = new_study("grid")
    assert not exhausted(study)
    study.tell(study.ask(), 0.0)
    assert exhausted(study)


def test_a_space_that_is_infeasible_under_a_choice_ends() -> None:
    """Its trials break off before they are asked for the rest."""
    study = new_study("grid")
    tried = 0
    while not exhausted(study):
        trial = study.ask()
        tried += 1
        if trial.suggest_categorical("kind", ["small", "large"]) == "large":
            end(study, trial, "infeasible")
        else:
            trial.suggest_int("layers", 1, 2)
            study.tell(trial, 0.0)
    assert tried == 3


@pytest.mark.parametrize(
    ("distribution", "points", "expected"),
    [
        (FloatDistribution(0, 1), 3, [0, 0.5, 1]),
        (FloatDistribution(0, 1), 1, [0.5]),
        (FloatDistribution(1e-4, 1, log=True), 5, [1e-4, 1e-3, 1e-2, 1e-1, 1]),
        (FloatDistribution(1e-4, 1, log=True), 1, [1e-2]),
        (FloatDistribution(0, 0.4, step=0.1), 3, [0, 0.2, 0.4]),
        (FloatDistribution(0, 0.2, step=0.1), 5, [0, 0.1, 0.2]),
        (FloatDistribution(2, 2), 3, [2]),
        (IntDistribution(1, 9), 3, [1, 5, 9]),
        (IntDistribution(1, 2), 3, [1, 2]),
        (IntDistribution(1, 64, log=True), 3, [1, 8, 64]),
        (IntDistribution(0, 12, step=4), 3, [0, 8, 12]),
        (optuna.distributions.CategoricalDistribution(("a", None)), 1, ["a", None]),
    ],
)
def test_points_of_a_grid(distribution: BaseDistribution, points: int, expected: list[Any]) -> None:
    values = grid_values(distribution, points)
    assert values == (
        expected if isinstance(expected[0], str) else pytest.approx(expected, rel=1e-12)
    )


@st.composite
def ranges(draw: st.DrawFn) -> FloatDistribution | IntDistribution:
    log = draw(st.booleans())
    if draw(st.booleans()):
        low = draw(st.integers(1, 1000))
        step = 1 if log else draw(st.integers(1, 50))
        count = draw(st.integers(0, 200))
        return IntDistribution(low, low + step * count, log=log, step=step)
    start = draw(st.floats(1e-8, 1e3))
    if log:
        return FloatDistribution(start, start * draw(st.floats(1, 1e8)), log=True)
    step = draw(st.none() | st.floats(1e-3, 10))
    end = start + draw(st.floats(0, 1e3)) + (step or 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an end that is no whole number of steps away
        return FloatDistribution(start, end, step=step)


@given(distribution=ranges(), points=st.integers(1, 40), share=st.floats(0, 1))
def test_every_value_lies_in_its_range(
    distribution: FloatDistribution | IntDistribution, points: int, share: float
) -> None:
    values = grid_values(distribution, points)
    assert 1 <= len(values) <= points
    assert values == sorted(set(values))
    if points > 1:
        assert values[0] == distribution.low
        assert values[-1] == distribution.high
    for found in (*values, value_at(distribution, share, even=True)):
        assert distribution._contains(distribution.to_internal_repr(found))


# A low-discrepancy sequence


def test_a_sequence_spreads_evenly_over_each_parameter_and_pair() -> None:
    study = new_study("qmc")
    for _ in range(65):
        trial = study.ask()
        trial.suggest_int("x", 1, 8)
        trial.suggest_float("lr", 1e-8, 1, log=True)
        trial.suggest_categorical("kind", list("abcd"))
        study.tell(trial, 0.0)
    # Before a trial was finished, nothing was known of the space; then 64 points follow.
    params = [trial.params for trial in study.trials[1:]]
    octaves = [math.floor(math.log10(found["lr"])) for found in params]
    xs, kinds = [found["x"] for found in params], [found["kind"] for found in params]
    for counts, expected in ((xs, 8), (octaves, 8), (kinds, 16)):
        assert all(abs(n - expected) <= 1 for n in Counter(counts).values())
    assert len(set(zip(xs, octaves, strict=True))) >= 60


def test_a_sequence_without_scrambling_is_the_same_for_all_seeds() -> None:
    def points(seed: int, *, scramble: bool) -> list[Any]:
        study = new_study("qmc", seed, scramble=scramble)
        for _ in range(4):
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            study.tell(trial, 0.0)
        return [trial.params for trial in study.trials[1:]]

    assert points(0, scramble=False) == points(1, scramble=False)
    assert points(0, scramble=True) != points(1, scramble=True)


def test_a_sequence_knows_a_parameter_when_a_trial_that_had_it_is_finished() -> None:
    def drawn(other: str) -> float:
        study = new_study("qmc")
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, 0.0)
        trial, beside = study.ask(), study.ask()
        if other:
            beside.suggest_float("y", 0, 1)
        if other == "finished":
            study.tell(beside, 0.0)
        return trial.suggest_float("y", 0, 1)

    assert drawn("running") == drawn("")
    assert drawn("finished") != drawn("")


@pytest.mark.parametrize("name", ["random", "qmc", "grid", "tpe", "gp"])
def test_the_study_is_not_written_to(name: str) -> None:
    study = new_study(name)
    run(study, 6)
    assert study._storage.get_study_system_attrs(study._study_id) == {}


# The table


@pytest.mark.parametrize(
    ("share", "expected"), [(1, 3), (10, 3), (12, 3), (16, 4), (30, 7), (40, 10), (400, 10)]
)
def test_startup_grows_with_the_share(share: int, expected: int) -> None:
    assert Budget(share=share, epochs=1).startup_trials == expected


SETTINGS = [(row, setting) for row in SAMPLERS for setting in row.settings]


def wrong_values(setting: Setting) -> list[Any]:
    if setting.kind is bool:
        return [1, "true", None]
    if setting.kind is str:
        return ["no such choice", 1]
    wrong: list[Any] = ["3", True, None, math.nan, math.inf]
    wrong += [setting.low - 1] if setting.low > -math.inf else []
    wrong += [setting.high + 1] if setting.high < math.inf else []
    return wrong + ([2.5] if setting.kind is int else [])


@pytest.mark.parametrize(("row", "setting"), SETTINGS, ids=lambda item: item.name)
def test_a_default_is_allowed_and_what_is_not_is_refused(
    row: SamplerInfo, setting: Setting
) -> None:
    for budget in (Budget(share=1, epochs=1), Budget(share=1000, epochs=1000), AMPLE):
        assert setting.allows(setting.default_for(budget))
    check_sampler(row.name, {setting.name: setting.default_for(AMPLE)})
    assert setting.help
    assert setting.default_text
    for value in wrong_values(setting):
        with pytest.raises(
            SearchError, match=f"{setting.name} of sampler {row.name} .*{setting.rule}"
        ) as error:
            check_sampler(row.name, {setting.name: value})
        assert repr(value) in str(error.value)


def test_defaults() -> None:
    defaults = {
        (row.name, setting.name): setting.default_for(Budget(share=40, epochs=60))
        for row, setting in SETTINGS
    }
    assert defaults == {
        ("tpe", "n_startup_trials"): 10,
        ("tpe", "n_ei_candidates"): 24,
        ("tpe", "multivariate"): True,
        ("tpe", "constant_liar"): True,
        ("gp", "n_startup_trials"): 10,
        ("gp", "n_modelled_trials"): 200,
        ("qmc", "scramble"): True,
        ("grid", "points"): 3,
        ("nsga2", "population_size"): 8,
        ("nsga2", "crossover_prob"): 0.9,
    }
    assert DEFAULT_SAMPLER == StudySpec().sampler == NAMES[0]


def test_settings_reach_the_samplers() -> None:
    made = {
        row.name: make_sampler(
            row.name,
            {s.name: v for s in row.settings if (v := _other(s)) is not None},
            seed=0,
            family="cnn",
            share=20,
        )
        for row in SAMPLERS
    }
    studies = {name: optuna.create_study(sampler=sampler) for name, sampler in made.items()}
    inner = {}
    for name, sampler in made.items():
        if isinstance(sampler, ReplayableSampler):
            trial = studies[name].ask()._cached_frozen_trial
            sampler.infer_relative_search_space(studies[name], trial)

            inner[name] = vars(sampler._relative)
    assert inner["tpe"]["_n_startup_trials"] == 5
    assert inner["tpe"]["_n_ei_candidates"] == 25
    assert (inner["tpe"]["_multivariate"], inner["tpe"]["_constant_liar"]) == (False, False)
    assert (inner["gp"]["_n_startup_trials"], inner["gp"]["_most"]) == (5, 201)
    assert inner["nsga2"]["_population_size"] == 5
    assert inner["nsga2"]["_child_generation_strategy"]._crossover_prob == 0.5
    assert vars(made["grid"])["_points"] == 4
    assert vars(made["qmc"])["_scramble"] is False


def _other(setting: Setting) -> Any:
    if setting.kind is bool:
        return not setting.default
    if setting.kind is float:
        return 0.5
    return 5 if callable(setting.default) else int(setting.default or 0) + 1


def test_what_is_unknown_is_named_with_what_is_known() -> None:
    with pytest.raises(SearchError, match="one of tpe, gp, random, qmc, grid, nsga2, but is 'cma'"):
        check_sampler("cma", {})
    with pytest.raises(SearchError, match="tpe has no setting 'points'; it has n_startup_trials,"):
        make_sampler("tpe", {"points": 3}, seed=0, family="cnn", share=10)
    with pytest.raises(SearchError, match="random has no setting 'points'; it has no settings"):
        check_sampler("random", {"points": 3})
    with pytest.raises(SearchError, match=r"gp is for at most 4 objectives, .* has 5; use tpe"):
        check_sampler("gp", {}, objectives=5)
    check_sampler("gp", {}, objectives=4)


def test_a_whole_number_is_a_number() -> None:
    check_sampler("nsga2", {"crossover_prob": 1})


def test_a_specification_refuses_what_cannot_be_made() -> None:
    StudySpec(sampler="grid", sampler_options={"points": 5})
    with pytest.raises(SearchError, match=r"points of sampler grid must be .*, but is 0"):
        StudySpec(sampler="grid", sampler_options={"points": 0})
    with pytest.raises(SearchError, match="sampler must be one of"):
        StudySpec(sampler="")
