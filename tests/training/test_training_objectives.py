"""Every objective: which way is better, what breaks ties, and what is not a number."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch import StudySpec
from hpsearch.config import TrainConfig
from hpsearch.errors import ConfigError
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import (
    DEFAULT_OBJECTIVE,
    OBJECTIVES,
    Objective,
    objective_info,
)
from hpsearch.training.scores import Scores


@dataclasses.dataclass(frozen=True)
class Epoch:
    val_loss: float = 0.5
    val_accuracy: float = 0.5
    val_balanced_accuracy: float = 0.5
    val_macro_f1: float = 0.5


each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda row: row.name)
SHARES = st.floats(0, 1)
EPOCHS = st.builds(Epoch, st.floats(0, 1e6), SHARES, SHARES, SHARES)


def test_the_table_has_what_was_agreed() -> None:
    assert {row.name: row.direction for row in OBJECTIVES} == {
        "val_accuracy": "maximize",
        "val_balanced_accuracy": "maximize",
        "val_macro_f1": "maximize",
        "val_loss": "minimize",
    }
    assert [row.name for row in OBJECTIVES if not row.is_share] == ["val_loss"]


def test_the_default_is_the_same_everywhere() -> None:
    assert TrainConfig(family="mlp").objective == DEFAULT_OBJECTIVE == "val_accuracy"
    assert StudySpec().objective == DEFAULT_OBJECTIVE


def test_names_and_labels_are_unique() -> None:
    for field in ("name", "label", "short"):
        assert len({getattr(row, field) for row in OBJECTIVES}) == len(OBJECTIVES)


@each_objective
class TestEach:
    def test_its_value_is_the_field_of_its_name(self, objective: Objective) -> None:
        epoch = Epoch(val_loss=0.1, val_accuracy=0.2, val_balanced_accuracy=0.3, val_macro_f1=0.4)
        assert objective.value(epoch) == getattr(epoch, objective.name)

    def test_what_is_measured_is_measured_in_training_too(self, objective: Objective) -> None:
        fields = {field.name for field in dataclasses.fields(EpochResult)}
        assert objective.name in fields
        assert objective.name.replace("val_", "train_", 1) in fields
        of_scores = {f"val_{field.name}" for field in dataclasses.fields(Scores)}
        assert (objective.name in of_scores) == objective.is_share

    @given(a=EPOCHS, b=EPOCHS)
    def test_the_better_value_has_the_greater_key(
        self, objective: Objective, a: Epoch, b: Epoch
    ) -> None:
        better = objective.value(a) - objective.value(b)
        if objective.direction == "minimize":
            better = -better
        assert objective.gain(a, b) == better
        if better > 0:
            assert objective.key(a) > objective.key(b)
        elif better == 0:
            assert (objective.key(a) > objective.key(b)) == (a.val_loss < b.val_loss)

    def test_a_tie_goes_to_the_lower_loss(self, objective: Objective) -> None:
        a, b = Epoch(val_loss=0.3), Epoch(val_loss=0.4)
        assert objective.key(a) > objective.key(b)
        assert objective.key_of(0.5, 0.3) > objective.key_of(0.5, 0.4)

    def test_what_is_not_a_number_is_worst(self, objective: Objective) -> None:
        unknown = dataclasses.replace(Epoch(), **{objective.name: math.nan})
        worst = 1e6 if objective.direction == "minimize" else 0.0
        known = dataclasses.replace(Epoch(val_loss=1e6), **{objective.name: worst})
        assert objective.key(known) > objective.key(unknown)
        assert not objective.key(unknown) > objective.key(unknown)
        assert not objective.gain(unknown, known) > 0
        assert objective.key_of(0.5, 1e6) > objective.key_of(0.5, math.nan)

    def test_it_is_found_by_its_name(self, objective: Objective) -> None:
        assert objective_info(objective.name) is objective


def test_an_unknown_one_lists_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        objective_info("val_acc")
    assert "'val_acc'" in str(caught.value)
    for row in OBJECTIVES:
        assert row.name in str(caught.value)


@pytest.mark.parametrize("value", ["", 5, None])
def test_a_configuration_refuses_what_is_no_name(value: object) -> None:
    with pytest.raises(ConfigError, match="objective"):
        TrainConfig(family="mlp", objective=value)  # type: ignore[arg-type]
