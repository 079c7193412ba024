"""Ablations: a configuration, and variations of it in one parameter each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpsearch import Range, SearchRecord, StudySpec, TrialRecord, load_search, search
from hpsearch.engine.ablation import ablation_of
from hpsearch.engine.ablation_spec import ablation_spec, spread_values
from hpsearch.engine.events import Event, TrialFinished
from hpsearch.errors import HpsearchError, SearchError, SpaceError
from hpsearch.families import Parameter

OVERRIDES = {"lr": Range(1e-4, 1e-1), "momentum": 0.7, "width": 32, "hflip": 0.5}
SPEC = StudySpec(
    artifacts="none",
    name="found",
    families=("mlp", "cnn"),
    trials=4,
    epochs=2,
    precision="fp32",
    overrides={**OVERRIDES, "cnn.channels": 8, "cnn.blocks": 2, "cnn.hidden": 0},
    sampler="random",
    patience=3,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """A search whose first trials of each family are the known-good ones: AdamW, then SGD."""
    record = search(SPEC, runs=tmp_path_factory.mktemp("runs"), device="cpu")
    assert [trial.params["optimizer"] for trial in record.trials][:2] == ["adamw", "sgd"]
    return record


def settled(spec: StudySpec) -> list[dict[str, Any]]:
    """What each trial of an ablation tries, as far as it varies."""
    return [dict(row) for row in spec.first]


def test_each_variation_differs_from_the_center_in_one_value(found: SearchRecord) -> None:
    trial = found.trial("mlp-0")
    vary = {"lr": None, "optimizer": None, "batch_size": (16, 1000)}
    spec = ablation_spec(found, vary=vary, around=trial)
    center, *others = settled(spec)
    assert center == {name: trial.params[name] for name in vary}
    changes = [{key: value for key, value in row.items() if value != center[key]} for row in others]
    lrs = [change["lr"] for change in changes if "lr" in change]
    assert lrs == [1e-4, 0.000562, 0.00316, 0.0178, 1e-1]
    rest = [change for change in changes if "lr" not in change]
    assert rest == [{"optimizer": "sgd"}, {"batch_size": 16}, {"batch_size": 1000}]
    assert spec.trials == len(spec.first) == 9
    # All else is the trial's.
    fixed = {key: value for key, value in trial.params.items() if key not in vary}
    assert {key: spec.overrides[key] for key in fixed} == fixed
    assert set(spec.overrides) == {*trial.params, "momentum"}
    assert spec.overrides["momentum"] == 0.7  # the search's, for the variation that has one


def test_all_else_is_the_search_s(found: SearchRecord) -> None:
    spec = ablation_spec(found, vary={"batch_size": None})
    assert (spec.name, spec.families) == ("found-ablation", (found.best.family,))
    for field in ("epochs", "split", "seed", "early_stopping", "keep", "objective"):
        assert getattr(spec, field) == getattr(SPEC, field)
    assert spec.data_spec.source == SPEC.data_spec.source
    assert (spec.pruner, spec.patience, spec.precision) == ("none", 0, "fp32")
    assert found.best.config is not None
    assert spec.training_seed == found.best.config.seed
    other = ablation_spec(found, vary={"batch_size": None}, name="x", epochs=7, seed=5)
    assert (other.name, other.epochs, other.training_seed) == ("x", 7, 5)
    assert StudySpec.from_dict(spec.to_dict()).to_dict() == spec.to_dict()


def test_values_may_be_outside_of_the_search(found: SearchRecord) -> None:
    vary = {
        "lr": (5, 1e-6),
        "weight_decay": (0,),  # searched on a log scale, which has no 0
        "ema": (0.9,),
        "hflip": (0,),
        "widths": ([64, 32], "8"),
        "epochs": (1,),
    }
    spec = ablation_spec(found, vary=vary, around=found.trial("mlp-1"))
    center, *others = settled(spec)
    weight_decay = found.trial("mlp-1").params["weight_decay"]
    assert center == {
        "lr": 0.05,
        "weight_decay": weight_decay,
        "ema": 0.0,
        "hflip": 0.5,
        "widths": "",
        "epochs": 2,
    }
    assert [
        {key: value for key, value in row.items() if value != center[key]} for row in others
    ] == [
        *({"lr": 1e-6}, {"lr": 5.0}, {"weight_decay": 0.0}, {"ema": 0.9}, {"hflip": 0.0}),
        *({"widths": "64/32"}, {"widths": "8"}, {"epochs": 1}),
    ]


def test_what_a_variation_takes_away_does_no_harm(found: SearchRecord, tmp_path: Path) -> None:
    """Momentum goes with SGD, layers and width with a list of widths."""
    vary = {"optimizer": None, "momentum": (0.5,), "widths": ("16",), "layers": (1,)}
    spec = ablation_spec(found, vary=vary, around=found.trial("mlp-1"), name="away", epochs=1)
    record = search(spec, runs=tmp_path, device="cpu")
    assert [trial.state for trial in record.trials[:5]] == ["complete"] * 5
    center, adamw, momentum, widths, layers = (dict(t.params) for t in record.trials[:5])
    assert center == {**found.trial("mlp-1").params, "widths": ""}
    assert adamw == {
        **{key: value for key, value in center.items() if key != "momentum"},
        "optimizer": "adamw",
    }
    assert momentum == {**center, "momentum": 0.5}
    gone = ("layers", "width")
    assert widths == {
        **{key: value for key, value in center.items() if key not in gone},
        "widths": "16",
    }
    assert layers == {**center, "layers": 1}
    ablation = ablation_of(record)
    assert ablation is not None
    assert {
        name: [(row.value, row.trial and row.trial.name, row.is_center) for row in rows]
        for name, rows in ablation.parameters.items()
    } == {
        "optimizer": [("sgd", "mlp-0", True), ("adamw", "mlp-1", False)],
        "momentum": [(0.5, "mlp-2", False), (0.7, "mlp-0", True)],
        "widths": [("", "mlp-0", True), ("16", "mlp-3", False)],
        "layers": [(1, "mlp-4", False), (2, "mlp-0", True)],
    }


def test_what_only_a_variation_has_is_as_in_the_known_good_configuration(
    found: SearchRecord,
) -> None:
    """Where the search says nothing of it."""
    free = {key: value for key, value in found.spec["overrides"].items() if key != "momentum"}
    record = dataclasses.replace(found, spec={**found.spec, "overrides": free})
    vary = {"optimizer": None}
    spec = ablation_spec(record, vary=vary, around=record.trial("mlp-0"), name="known", epochs=1)
    done = search(spec, runs=found.runs, device="cpu")
    assert "momentum" not in done.trials[0].params
    assert done.trials[1].params["momentum"] == 0.9


def test_interrupted_and_resumed_it_has_exactly_its_trials(found: SearchRecord) -> None:
    trial = found.trial("mlp-0")
    vary = {"lr": (1e-4, 3e-3, 1e-1), "optimizer": None}
    ended: list[TrialRecord] = []

    def watch(event: Event) -> None:
        if isinstance(event, TrialFinished):
            ended.append(event.trial)
            if len(ended) == 2:
                raise KeyboardInterrupt

    spec = ablation_spec(found, vary=vary, around=trial)
    with pytest.raises(KeyboardInterrupt):
        search(spec, runs=found.runs, device="cpu", watch=watch)
    half = ablation_of(load_search(found.runs, spec.name))
    assert half is not None
    assert [row.trial is not None and row.trial.state for row in half.parameters["lr"]] == [
        *("complete", "complete", "waiting"),
    ]

    again = ablation_spec(load_search(found.runs, "found"), vary=vary, around=trial)
    assert again.to_dict() == spec.to_dict()
    search(again, runs=found.runs, device="cpu", watch=watch)
    record = search(again, runs=found.runs, device="cpu", watch=watch)  # nothing is left
    assert record.finished == record.count("complete") == len(ended) == spec.trials == 4
    ablation = ablation_of(record)
    assert ablation is not None
    assert [row.value for row in ablation.parameters["lr"]] == [1e-4, 3e-3, 1e-1]
    for name, rows in ablation.parameters.items():
        for row in rows:
            assert row.trial is not None
            assert row.trial.params[name] == row.value
            assert row.trial.state == "complete"
    # The center is that very trial again, and only the parameters differ in the others.
    assert ablation.center is not None
    assert ablation.center.reported == trial.reported
    assert ablation.same_seed


def test_what_cannot_be_trained_is_shown_and_brings_no_other_trial(found: SearchRecord) -> None:
    trial = found.trial("cnn-0")
    vary = {"lr": (1e-2,), "padding": ("none",)}
    spec = ablation_spec(found, vary=vary, around=trial, name="small", epochs=1)
    assert (len(spec.first), spec.trials) == (3, 2)
    record = search(spec, runs=found.runs, device="cpu")
    begun = [row.state for row in record.trials if row.state != "waiting"]
    assert begun == ["complete", "infeasible", "complete"]
    ablation = ablation_of(record)
    assert ablation is not None
    assert [
        (row.value, row.trial and row.trial.state) for row in ablation.parameters["padding"]
    ] == [
        ("same", "complete"),
        ("none", "infeasible"),
    ]


def test_a_family_of_one_s_own(tmp_path: Path) -> None:
    own = tmp_path / "mean_colour.py"
    own.write_text(
        """
from torch import nn
from hpsearch import Family, ScheduledDropout, StagedModel, ask_start, suggest_training

def suggest(s, shape):
    start = ask_start(s, shape)
    return suggest_training(s, start, options={"bins": s.int("bins", 1, 4)})

def build(options, shape, n_classes):
    if options["bins"] == 3:
        raise ValueError("three is too odd")
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(options["bins"]), nn.Flatten())
    return StagedModel({"pool": pool, "head": nn.Linear(options["bins"] ** 2, n_classes)})

FAMILY = Family(
    summary="the mean", suggest=suggest, build=build,
    defaults=({"bins": 4, "optimizer": "adamw", "lr": 0.01},),
)
""",
        encoding="utf-8",
    )
    runs = tmp_path / "runs"
    base = StudySpec(name="own", families=(str(own),), trials=1, epochs=1, precision="fp32")
    spec = ablation_spec(search(base, runs=runs, device="cpu"), vary={"bins": None})
    assert (spec.families, spec.trials) == ((str(own),), 4)
    record = search(spec, runs=runs, device="cpu")
    ablation = ablation_of(record)
    assert ablation is not None
    found = [(row.value, row.trial and row.trial.state) for row in ablation.parameters["bins"]]
    assert found == [(1, "complete"), (2, "complete"), (3, "failed"), (4, "complete")]


@pytest.mark.parametrize(
    ("vary", "around", "kind", "parts"),
    [
        ({}, "mlp-0", SearchError, ["at least one"]),
        ({"speed": None}, "mlp-0", SpaceError, ["'speed'", "batch_size"]),
        ({"lr": ("fast",)}, "mlp-0", SpaceError, ["lr", "'fast'"]),
        ({"lr": (1e9,)}, "mlp-0", SpaceError, ["lr", "1000000000"]),
        ({"layers": (0, 2)}, "mlp-0", SpaceError, ["layers", "1 to 64"]),
        ({"optimizer": ("lion",)}, "mlp-0", SpaceError, ["'lion'", "adamw, sgd"]),
        ({"lr": (3e-3,)}, "mlp-0", SearchError, ["lr is 0.003 in trial mlp-0"]),
        ({"momentum": (0.5,)}, "mlp-0", SpaceError, ["mlp-0", "'momentum'", "optimizer sgd"]),
        ({"width": None}, "mlp-0", SearchError, ["does not vary width", "width=A,B"]),
        ({"vflip": None}, "mlp-0", SearchError, ["does not vary vflip"]),
        ({"cnn.lr": None}, "mlp-0", SpaceError, ["'cnn'", "mlp"]),
        ({"image_size": (2,)}, "cnn-0", SpaceError, ["image_size=2", "blocks", "leave it out"]),
        ({"image_size": (1,)}, "cnn-0", SpaceError, ["image_size=1", "2x2", "leave it out"]),
    ],
)
def test_what_cannot_be_varied_is_refused_in_one_line(
    found: SearchRecord,
    vary: dict[str, Sequence[Any] | None],
    around: str,
    kind: type[HpsearchError],
    parts: list[str],
) -> None:
    with pytest.raises(kind) as caught:
        ablation_spec(found, vary=vary, around=found.trial(around), name="refused")
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_a_trial_without_a_configuration_is_refused(found: SearchRecord) -> None:
    trial = dataclasses.replace(found.trial("mlp-0"), config=None, state="waiting")
    with pytest.raises(SearchError, match=r"mlp-0 .* waiting .* another trial"):
        ablation_spec(found, vary={"lr": None}, around=trial)


def test_another_ablation_needs_another_name(found: SearchRecord) -> None:
    with pytest.raises(SearchError, match=r"'found' .* --name found-2$") as caught:
        ablation_spec(found, vary={"lr": None}, name="found")
    assert len(str(caught.value)) < 300


def test_a_search_that_is_none(found: SearchRecord) -> None:
    assert ablation_of(found) is None

    def tried_first(*first: dict[str, Any]) -> SearchRecord:
        spec = {**found.spec, "families": ["mlp"], "first": list(first)}
        return dataclasses.replace(found, spec=spec)

    assert ablation_of(tried_first({"lr": 1})) is None
    assert ablation_of(tried_first({"lr": 1, "warmup": 0}, {"lr": 2, "warmup": 1})) is None
    assert ablation_of(tried_first({"lr": 1}, {"warmup": 0.1})) is None
    ablation = ablation_of(tried_first({"lr": 1}, {"lr": 2}))
    assert ablation is not None
    assert ablation.center is None  # the trials have other values


@pytest.mark.parametrize(
    ("row", "values"),
    [
        (Parameter(name="x", kind="categorical", choices=("a", "b")), ("a", "b")),
        (Parameter(name="x", kind="int", low=1, high=3), (1, 2, 3)),
        (Parameter(name="x", kind="int", low=1, high=1000, log=True), (1, 6, 32, 178, 1000)),
        (Parameter(name="x", kind="float", low=0, high=0.6), (0.0, 0.15, 0.3, 0.45, 0.6)),
        (Parameter(name="x", kind="float", low=1 / 3, high=1 / 3), (1 / 3,)),
    ],
)
def test_values_follow_from_the_space(row: Parameter, values: tuple[Any, ...]) -> None:
    assert spread_values(row) == values
