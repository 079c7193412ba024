"""The names of objectives, and what a trial is worth by them."""

from __future__ import annotations

import dataclasses

import pytest
from test_training_costs import CPU, SHAPE, staged

from hpsearch.errors import ConfigError
from hpsearch.training.costs import COSTS
from hpsearch.training.goals import objective_rows, trial_values
from hpsearch.training.layers import layer_table, totals
from hpsearch.training.model import parameter_counts
from hpsearch.training.objectives import OBJECTIVES, Objective


@dataclasses.dataclass(frozen=True)
class Epoch:
    val_loss: float = 0.5
    val_accuracy: float = 0.9
    val_balanced_accuracy: float = 0.8
    val_macro_f1: float = 0.7


class TestNames:
    @pytest.mark.parametrize("row", OBJECTIVES, ids=lambda row: row.name)
    def test_one(self, row: Objective) -> None:
        assert objective_rows(row.name) == (row,)

    def test_several_in_their_order(self) -> None:
        rows = objective_rows("val_loss, macs,val_accuracy ,params,latency")
        assert [row.name for row in rows] == [
            "val_loss",
            "macs",
            "val_accuracy",
            "params",
            "latency",
        ]
        assert [row.direction for row in rows[:3]] == ["minimize", "minimize", "maximize"]

    @pytest.mark.parametrize("text", ["params", "latency,val_accuracy", "", ",params", None, 5, ()])
    def test_the_first_is_no_cost(self, text: object) -> None:
        with pytest.raises(ConfigError) as caught:
            objective_rows(text)  # type: ignore[arg-type]
        first = text.split(",")[0] if isinstance(text, str) else text
        assert f"but is {first!r}" in str(caught.value)
        for row in (*OBJECTIVES, *COSTS):
            assert row.name in str(caught.value)

    @pytest.mark.parametrize("other", ["size", "", "Params", "val_acc"])
    def test_an_unknown_one_lists_those_there_are(self, other: str) -> None:
        with pytest.raises(ConfigError) as caught:
            objective_rows(f"val_accuracy,params,{other}")
        assert f"names {other!r}, which is unknown" in str(caught.value)
        for row in (*OBJECTIVES, *COSTS):
            assert row.name in str(caught.value)

    @pytest.mark.parametrize("text", ["val_loss,val_loss", "val_loss,macs,params, macs"])
    def test_none_twice(self, text: str) -> None:
        with pytest.raises(ConfigError, match=f"names '{text.split(',')[-1].strip()}' twice"):
            objective_rows(text)


def test_a_trials_values_are_of_its_best_epoch_and_its_model() -> None:
    model = staged()
    values = trial_values(
        objective_rows("val_macro_f1,params,val_loss,macs"), Epoch(), model, SHAPE, CPU
    )
    assert values == (
        0.7,
        float(parameter_counts(model)[0]),
        0.5,
        float(totals(layer_table(model, SHAPE)).macs),
    )
    assert trial_values(objective_rows("val_accuracy"), Epoch(), model, SHAPE, CPU) == (0.9,)
