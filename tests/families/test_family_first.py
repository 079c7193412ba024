"""Configurations that a user wants tried first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import SpaceError
from hpsearch.families import (
    First,
    Override,
    Range,
    check_first,
    check_overrides,
    default_params,
    first_params,
    known_good,
    space_of,
    suggest_config,
)

SHAPE = ImageShape(8, 8, 1)
CLASSIC = ("logistic", "mlp", "cnn")


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def suggest(name: str, trial: Any, overrides: Mapping[str, Override]) -> None:
    suggest_config(name, trial, SHAPE, epochs=5, seed=0, precision="fp32", overrides=overrides)


def one(name: str, overrides: Mapping[str, Override], **values: Any) -> dict[str, Any]:
    """A configuration completed; what follows it are the family's own."""
    params, *others = first_params(name, SHAPE, overrides, (values,))
    assert others == [row for row in default_params(name, SHAPE, overrides) if row != params]
    return params


class TestCompletion:
    @pytest.mark.parametrize("name", CLASSIC)
    def test_without_any_they_are_the_known_good_ones(self, name: str) -> None:
        assert first_params(name, SHAPE) == default_params(name, SHAPE)

    def test_what_is_not_given_is_as_in_the_first_known_good_one(self) -> None:
        known = default_params("cnn", SHAPE)[0]
        assert one("cnn", {}, lr=1e-3) == {**known, "lr": 1e-3}
        assert one("cnn", {}, lr=1e-3, blocks=1) == {**known, "lr": 1e-3, "blocks": 1}

    def test_of_the_known_good_ones_that_with_the_same_choices_completes_it(self) -> None:
        sgd = next(row for row in known_good("cnn", SHAPE) if row["optimizer"] == "sgd")
        for values in ({"optimizer": "sgd"}, {"momentum": 0.8}, {"momentum": 0.8, "dropout": 0.1}):
            params = one("cnn", {}, **values)
            assert params == {**{key: sgd[key] for key in params}, **values}

    def test_it_obeys_the_overrides(self) -> None:
        params = one("cnn", {"lr": Range(1e-4, 1e-3), "batch_size": 128, "ema": "search"}, blocks=1)
        assert (params["blocks"], params["lr"], params["batch_size"]) == (1, 1e-3, 128)
        assert 0.9 <= params["ema"] < 1
        assert one("cnn", {"ema": "search"}, ema=0.99)["ema"] == 0.99
        sgd = one("cnn", {"optimizer": "sgd"}, blocks=1)
        assert (sgd["lr"], sgd["momentum"]) == (0.05, 0.9)

    def test_a_list_is_one_value(self) -> None:
        overrides: dict[str, Override] = {"widths": ([512, 256], [64], [])}
        assert one("mlp", overrides, widths=[64])["widths"] == "64"
        assert one("mlp", overrides, widths="512/256")["widths"] == "512/256"
        empty = one("mlp", overrides, widths=[], layers=3)
        assert (empty["widths"], empty["layers"]) == ("", 3)

    def test_numbers_have_the_kind_of_their_parameter(self) -> None:
        params = one("mlp", {}, layers=3.0, dropout=0, batch_size=32.0)
        assert [type(params[key]) for key in ("layers", "dropout", "batch_size")] == [
            int,
            float,
            int,
        ]

    def test_what_all_trials_have_anyway_can_be_given(self) -> None:
        assert one("mlp", {}, ema=0, lr=1e-3) == one("mlp", {}, lr=1e-3)
        assert one("mlp", {"lr": 1e-2}, lr=1e-2, layers=1)["lr"] == 1e-2

    def test_a_preset_among_others(self) -> None:
        params = one("mlp", {"preset": ("stl-fc3", "signs")}, preset="signs")
        assert params["preset"] == "signs"
        assert "layers" not in params

    def test_each_is_tried_once_in_the_order_given(self) -> None:
        first: First = ({"blocks": 3}, {"lr": 1e-3}, {"blocks": 3, "hidden": 0}, {"lr": 3e-3})
        known = default_params("cnn", SHAPE)
        assert known[0]["hidden"] == 0
        assert known[0]["lr"] == 3e-3
        assert first_params("cnn", SHAPE, {}, first) == [
            {**known[0], "blocks": 3},
            {**known[0], "lr": 1e-3},
            *known,
        ]


class TestFamilies:
    def test_a_family_that_has_none_of_the_parameters_is_passed_over(self) -> None:
        first: First = ({"blocks": 1}, {"layers": 1}, {"lr": 1e-3, "blocks": 1})
        check_first(("cnn", "mlp"), SHAPE, {}, first)
        assert [row["blocks"] for row in first_params("cnn", SHAPE, {}, first)[:2]] == [1, 1]
        of_mlp = first_params("mlp", SHAPE, {}, first)
        assert [row["layers"] for row in of_mlp[:2]] == [1, 2]
        assert [row["lr"] for row in of_mlp[:2]] == [3e-3, 1e-3]
        assert len(of_mlp) == 2 + len(default_params("mlp", SHAPE))

    def test_a_value_for_one_family(self) -> None:
        first: First = ({"lr": 1e-3, "cnn.lr": 1e-2}, {"mlp.layers": 1})
        check_first(("cnn", "mlp"), SHAPE, {}, first)
        assert first_params("cnn", SHAPE, {}, first)[0]["lr"] == 1e-2
        assert first_params("cnn", SHAPE, {}, first)[1:] == default_params("cnn", SHAPE)
        assert [row["lr"] for row in first_params("mlp", SHAPE, {}, first)[:2]] == [1e-3, 3e-3]

    def test_an_override_of_one_family(self) -> None:
        overrides: dict[str, Override] = {"cnn.lr": Range(1e-2, 1e-1)}
        check_first(("cnn", "mlp"), SHAPE, overrides, ({"mlp.lr": 1e-3},))
        with pytest.raises(SpaceError, match=r"for cnn: lr must be 0\.01 to 0\.1, but is 0\.001"):
            check_first(("cnn", "mlp"), SHAPE, overrides, ({"lr": 1e-3},))

    def test_a_family_from_a_file_goes_by_its_label(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.py"
        file.write_text("from hpsearch.families.mlp import FAMILY\n", encoding="utf-8")
        first: First = ({"mine.layers": 1},)
        check_first((str(file), "cnn"), SHAPE, {}, first)
        assert first_params(str(file), SHAPE, {}, first)[0]["layers"] == 1


@pytest.mark.parametrize(
    ("values", "overrides", "parts"),
    [
        ({"speed": 1}, {}, ["unknown parameter 'speed'", "batch_size"]),
        ({"dropuot": 0.1}, {}, ["'dropuot'", "did you mean 'dropout'?"]),
        ({"cnn.lr": 0.1}, {}, ["'cnn'", "mlp"]),
        ({"mlp.blocks": 2}, {}, ["'mlp.blocks'"]),
        ({"lr": 0.9}, {}, ["lr must be 0.0001 to 0.5, but is 0.9"]),
        ({"lr": 1e9}, {}, ["lr must be", "1000000000.0"]),
        ({"lr": "high"}, {}, ["lr must be a number", "'high'"]),
        ({"lr": True}, {}, ["lr", "True"]),
        ({"lr": [1e-3]}, {}, ["lr", "[0.001]"]),
        ({"layers": 2.5}, {}, ["layers must be a whole number", "2.5"]),
        ({"layers": 5}, {}, ["layers must be 1 to 4, but is 5"]),
        ({"lr": 1e-3}, {"lr": Range(1e-2, 1e-1)}, ["lr must be 0.01 to 0.1, but is 0.001"]),
        ({"lr": 1e-3}, {"lr": 1e-2}, ["lr must be", "0.01", "but is 0.001"]),
        ({"optimizer": "sgd"}, {"optimizer": "adamw"}, ["one of adamw, but is 'sgd'"]),
        ({"optimizer": "adam"}, {}, ["one of adamw, sgd, but is 'adam'"]),
        ({"optimizer": "lion"}, {}, ["optimizer must be one of", "'lion'"]),
        ({"batch_size": 48}, {"batch_size": (32, 64)}, ["one of 32, 64, but is 48"]),
        ({"ema": 0.99}, {}, ["ema must not be 0.99", "0.0 in every trial", "override"]),
        ({"ema": 0}, {"ema": "search"}, ["ema must be 0.9", "but is 0"]),
        ({"widths": [64]}, {}, ["widths must not be '64'", "not given", "override"]),
        ({"widths": [64]}, {"widths": ([32], [16])}, ["one of 32, 16, but is '64'"]),
        ({"widths": [0]}, {}, ["widths must be a list", "[0]"]),
        ({"optimizer": "adamw", "momentum": 0.9}, {}, ["'momentum'", "optimizer sgd"]),
        ({"momentum": 0.9}, {"optimizer": "adamw"}, ["'momentum'", "optimizer sgd"]),
        ({"layers": 2}, {"widths": [64]}, ["'layers'", "without widths"]),
        ({"layers": 2, "preset": "signs"}, {"preset": "search"}, ["'layers'", "preset"]),
        ({"preset": "signs"}, {}, ["preset must not be 'signs'", "override"]),
    ],
)
def test_a_wrong_configuration_is_named(
    values: dict[str, Any], overrides: dict[str, Override], parts: list[str]
) -> None:
    check_overrides(("mlp",), SHAPE, overrides)
    with pytest.raises(SpaceError) as caught:
        check_first(("mlp",), SHAPE, overrides, ({"rotate": 5}, values))
    assert str(caught.value).startswith("first, configuration 2")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_whole_number_is_written_as_one() -> None:
    with pytest.raises(SpaceError, match=r"layers must be 1 to 4, but is 5;"):
        first_params("mlp", SHAPE, {}, ({"layers": 5},))


def test_a_configuration_is_refused_where_one_family_of_several_cannot_have_it() -> None:
    with pytest.raises(SpaceError, match=r"for logistic: .*'momentum'.*optimizer sgd"):
        check_first(("cnn", "logistic"), SHAPE, {}, ({"momentum": 0.8},))
    check_first(("cnn", "logistic"), SHAPE, {}, ({"momentum": 0.8, "optimizer": "sgd"},))


OVERRIDES: tuple[dict[str, Override], ...] = (
    {},
    {"optimizer": "sgd"},
    {"lr": Range(1e-3, 1e-2), "batch_size": (16, 64), "ema": "search", "grad_clip": "search"},
    {"optimizer": ("adamw", "sgd", "rmsprop"), "mlp.widths": ([64], [32, 16], []), "hflip": 0.5},
    {"cnn.convs": 1, "dropout_rates": [0.1, 0.2], "schedule": "search", "mlp.width": Range(1, 99)},
)


@settings(max_examples=80)
@given(st.sampled_from(CLASSIC), st.sampled_from(OVERRIDES), st.integers(0, 999), st.data())
def test_what_a_trial_had_can_be_given_whole_or_in_part(
    name: str, overrides: dict[str, Override], seed: int, data: st.DataObject
) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    suggest(name, trial, overrides)
    assert first_params(name, SHAPE, overrides, (trial.params,))[0] == trial.params
    names = data.draw(st.lists(st.sampled_from(sorted(trial.params)), min_size=1, unique=True))
    part = {key: trial.params[key] for key in names}
    try:
        params = first_params(name, SHAPE, overrides, (part,))
    except SpaceError:  # one of them exists only under a value that is not given
        conditional = {row.name for row in space_of(name, SHAPE, overrides) if row.condition}
        assert conditional & part.keys()
        return
    assert part.items() <= params[0].items()
    for row in params:
        fixed = optuna.trial.FixedTrial(row)
        suggest(name, fixed, overrides)  # refuses what is missing or out of range
        assert fixed.params == row
