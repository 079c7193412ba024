"""Schedules that follow the validation, where there is none."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
import torch

from hpsearch.config import (
    DropoutConfig,
    EarlyStopping,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.data.resident import ResidentData
from hpsearch.families import initial_model
from hpsearch.results.retraining.replay import follows_validation, replayed
from hpsearch.results.retraining.rerun import unvalidated
from hpsearch.training.dropout import DROPOUT_SCHEDULES
from hpsearch.training.epoch import EpochResult
from hpsearch.training.schedules import SCHEDULES, Moment, Schedule
from hpsearch.training.trainer import Training

CONFIG = TrainConfig(
    family="mlp",
    epochs=6,
    batch_size=32,
    optimizer=OptimizerConfig(lr=0.3, lr_per=16),
    schedule=ScheduleConfig(name="plateau", warmup=0.2, options={"patience": 0, "gamma": 0.5}),
    dropout=DropoutConfig(schedule="adaptive", rate=0.6, options={"gap": 0.0, "speed": 1.0}),
    early_stopping=EarlyStopping(patience=5),
)


def train(config: TrainConfig, data: ResidentData) -> list[EpochResult]:
    model = initial_model(config, data.preprocessing.shape, len(data.classes))
    with closing(Training(model, data, config, device=torch.device("cpu")).run()) as epochs:
        return list(epochs)


class Unseen(Sequence[Any]):
    """A history that nobody may look at."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("it looked")

    def __len__(self) -> int:
        raise AssertionError("it looked")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("it looked")


@pytest.mark.parametrize("row", [*SCHEDULES, *DROPOUT_SCHEDULES], ids=lambda row: row.name)
def test_a_row_that_looks_at_epochs_says_so(row: Schedule) -> None:
    options = {name: info.default for name, info in row.options.items()}
    options |= {"rates": (0.5, 0.1)} if "rates" in options else {}
    moment = Moment(progress=0.4, epoch=2.0, history=Unseen())
    if row.follows_epochs:
        with pytest.raises(AssertionError, match="it looked"):
            row.factor(moment, options)
    else:
        assert 0 <= row.factor(moment, options) <= 1


def test_the_rates_of_the_search_come_again(tiny_digits: ResidentData) -> None:
    own = train(CONFIG, tiny_digits)
    assert own[-1].lr < max(result.lr for result in own), "it never fell: no test"
    assert len({result.dropout for result in own}) > 2, "it never changed: no test"
    config = replayed(CONFIG, CONFIG.epochs, own)
    assert follows_validation(CONFIG) != ()
    assert follows_validation(config) == ()
    assert config.early_stopping is None
    again = train(config, tiny_digits)
    assert [r.dropout for r in again] == pytest.approx([r.dropout for r in own])
    # Within the warm-up, which is the first two epochs, each epoch has one rate.
    assert [r.lr for r in again[2:]] == pytest.approx([r.lr for r in own[2:]])
    assert again[0].lr < again[1].lr <= max(r.lr for r in again)


def test_what_comes_after_the_end_stays(tiny_digits: ResidentData) -> None:
    own = train(CONFIG, tiny_digits)
    again = train(replayed(CONFIG, 9, own), tiny_digits)
    assert len(again) == 9
    assert [r.lr for r in again[5:]] == pytest.approx([own[5].lr] * 4)
    assert [r.dropout for r in again[5:]] == pytest.approx([own[5].dropout] * 4)


def test_dropout_that_never_rose_is_none(tiny_digits: ResidentData) -> None:
    calm = dataclasses.replace(
        CONFIG,
        dropout=DropoutConfig(schedule="adaptive", rate=0.6, options={"gap": 1.0, "speed": 1.0}),
    )
    own = train(calm, tiny_digits)
    assert {r.dropout for r in train(replayed(calm, 3, own), tiny_digits)} == {0.0}


def test_other_schedules_stay_as_they_are() -> None:
    config = TrainConfig(family="mlp", epochs=4, early_stopping=EarlyStopping(patience=1))
    assert replayed(config, 4, ()) == dataclasses.replace(config, early_stopping=None)
    assert replayed(config, 7, ()) == dataclasses.replace(config, early_stopping=None, epochs=7)


def test_validation_scores_are_taken_away(tiny_digits: ResidentData) -> None:
    result = train(dataclasses.replace(CONFIG, epochs=1), tiny_digits)[0]
    bare = unvalidated(result, is_best=False)
    names = [field.name for field in dataclasses.fields(EpochResult)]
    gone = {name for name in names if name.startswith("val_")}
    assert all(math.isnan(getattr(bare, name)) for name in gone)
    assert all(getattr(bare, n) == getattr(result, n) for n in names if n not in {*gone, "is_best"})
    assert not bare.is_best
