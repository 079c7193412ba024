from __future__ import annotations

from hpsearch.config import OptimizerConfig, TrainConfig
from hpsearch.training.words import configuration


def words(config: TrainConfig) -> dict[str, str]:
    return dict(configuration(config.to_dict()))


def test_what_is_off_is_left_out() -> None:
    found = words(TrainConfig(family="mlp", augment={"hflip": 0.0, "rotate": 10.0}))
    assert found["optimizer"] == "adamw, lr 0.001, stage_decay 1"
    assert found["augment"] == "rotate 10"
    assert not {"weights", "grad clip", "ema", "balance", "early stopping", "freeze"} & set(found)


def test_options_and_the_seed_are_told_where_they_are_off() -> None:
    # The momentum of sgd is 0.9, and Nesterov's, unless the options say otherwise.
    sgd = OptimizerConfig(name="sgd", options={"momentum": 0.0, "nesterov": False})
    found = words(
        TrainConfig(
            family="cnn", options={"hidden": 0, "view": "none", "widths": (8, 0)}, optimizer=sgd
        )
    )
    assert found["optimizer"].endswith("options momentum 0, nesterov no")
    assert found["options"] == "hidden 0, view none, widths 8/0"
    assert found["seed"] == "0"
