"""The contract of every option of every table, and how options are read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hpsearch.config import (
    DropoutConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.errors import ConfigError
from hpsearch.training.dropout import DEPTHS, DROPOUT_SCHEDULES
from hpsearch.training.losses import LOSSES
from hpsearch.training.optimizers import OPTIMIZERS
from hpsearch.training.options import OptionInfo, read_options
from hpsearch.training.schedules import SCHEDULES
from hpsearch.training.trainer import check_config

# What must be given, and the learning rate and dropout rate that go with it.
NEEDED: dict[str, dict[str, Any]] = {
    "ladder": {"rates": (1e-3, 1e-4)},
    "steps": {"rates": (0.1, 0.5)},
}


def _optimizer(name: str, options: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(family="mlp", optimizer=OptimizerConfig(name=name, options=options))


def _schedule(name: str, options: Mapping[str, Any]) -> TrainConfig:
    options = {**NEEDED.get(name, {}), **options}
    return TrainConfig(family="mlp", schedule=ScheduleConfig(name=name, options=options))


def _dropout(name: str, options: Mapping[str, Any]) -> TrainConfig:
    options = {**NEEDED.get(name, {}), **options}
    return TrainConfig(
        family="mlp", dropout=DropoutConfig(schedule=name, rate=0.5, options=options)
    )


def _loss(name: str, options: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(family="mlp", loss=LossConfig(name=name, options=options))


Make = Callable[[str, Mapping[str, Any]], TrainConfig]
TABLES: tuple[tuple[Make, tuple[Any, ...]], ...] = (
    (_optimizer, OPTIMIZERS),
    (_schedule, SCHEDULES),
    (_dropout, DROPOUT_SCHEDULES),
    (_loss, LOSSES),
)
ROWS = [
    pytest.param(make, row, id=f"{make.__name__[1:]}-{row.name}")
    for make, table in TABLES
    for row in table
]
OPTIONS = [
    pytest.param(make, row.name, name, option, id=f"{make.__name__[1:]}-{row.name}-{name}")
    for make, table in TABLES
    for row in table
    for name, option in row.options.items()
]


def bounds(option: OptionInfo) -> tuple[float, float]:
    return option.limits or (option.low, option.high)


def good_values(option: OptionInfo) -> list[Any]:
    low, high = bounds(option)
    if option.kind == "flag":
        return [True, False]
    if option.kind == "int" or option.whole:
        low, high = int(low), int(high)
    if option.kind == "list":
        return [(low, high), (high,)]
    return [low, high, option.low if option.kind == "float" else int(option.low)]


def bad_values(option: OptionInfo) -> list[Any]:
    low, high = bounds(option)
    if option.kind == "flag":
        return [1, 0.0, "yes", (True,)]
    numbers: list[Any] = [low - 1, high * 1.001 + 1, "3", True]
    if option.kind == "int" or option.whole:
        numbers.append((low + high) / 2 + 0.25)
    if option.kind == "list":
        rest: list[Any] = [(3, 2), (2, 2)] if option.rising else []
        return [high, "2/3", *((high, number) for number in numbers), *rest]
    return [*numbers, (high,), ()]


@pytest.mark.parametrize(("make", "row"), ROWS)
class TestEveryRow:
    def test_has_a_name_of_its_own_and_help(self, make: Make, row: Any) -> None:
        (table,) = (table for other, table in TABLES if other is make)
        assert [other.name for other in table].count(row.name) == 1
        assert row.help

    def test_is_known_by_its_name_with_its_defaults(self, make: Make, row: Any) -> None:
        check_config(make(row.name, {}))

    def test_an_unknown_option_is_named_beside_the_known_ones(self, make: Make, row: Any) -> None:
        with pytest.raises(ConfigError, match="'inertia'") as caught:
            check_config(make(row.name, {"inertia": 0.5}))
        for name in (row.name, *row.options):
            assert name in str(caught.value)

    def test_it_passes_through_json(self, make: Make, row: Any) -> None:
        options = {name: good_values(option)[0] for name, option in row.options.items()}
        if row.name in NEEDED:
            options = NEEDED[row.name]
        config = make(row.name, options)
        read = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert read == config
        check_config(read)


@pytest.mark.parametrize(("make", "row", "name", "option"), OPTIONS)
class TestEveryOption:
    def test_says_what_it_is_and_what_is_worth_searching(
        self, make: Make, row: str, name: str, option: OptionInfo
    ) -> None:
        low, high = bounds(option)
        assert option.help
        if option.kind == "flag":
            assert isinstance(option.default, bool)
            return
        assert low <= option.low < option.high <= high
        assert not option.log or option.low > 0
        if option.kind == "list":
            assert option.default == ()
            assert not option.searched  # a search has no way to draw one
        else:
            assert option.read(name, option.default) == option.default
        if option.searched:
            assert option.low <= option.default <= option.high  # type: ignore[operator]

    def test_takes_what_is_within_its_limits(
        self, make: Make, row: str, name: str, option: OptionInfo
    ) -> None:
        for value in good_values(option):
            config = make(row, {name: value})
            if row in NEEDED and name == "rates":
                lr, rate = (max(value), 0.5) if row == "ladder" else (1e-3, max(value))
                config = dataclasses.replace(
                    config,
                    optimizer=OptimizerConfig(lr=lr),
                    dropout=dataclasses.replace(config.dropout, rate=rate),
                )
            if name == "epochs":
                config = make(row, {name: value, "rates": (0.5,) * len(value)})
            check_config(config)

    def test_refuses_anything_else_by_name_and_value(
        self, make: Make, row: str, name: str, option: OptionInfo
    ) -> None:
        for value in bad_values(option):
            with pytest.raises(ConfigError) as caught:
                check_config(make(row, {name: value}))
            message = str(caught.value)
            assert f"{row!r}: {name} must be" in message
            assert repr(value) in message
            assert "\n" not in message


@pytest.mark.parametrize("make", [make for make, _ in TABLES], ids=lambda make: make.__name__[1:])
def test_an_unknown_row_is_named_beside_the_known_ones(make: Make) -> None:
    (table,) = (table for other, table in TABLES if other is make)
    with pytest.raises(ConfigError, match=r"unknown.*'lion'") as caught:
        check_config(make("lion", {}))
    for row in table:
        assert row.name in str(caught.value)


def test_an_unknown_depth_is_named_beside_the_known_ones() -> None:
    config = TrainConfig(family="mlp", dropout=DropoutConfig(depth="deep"))
    with pytest.raises(ConfigError, match="unknown dropout depth 'deep'") as caught:
        check_config(config)
    for row in DEPTHS:
        assert row.name in str(caught.value)


@pytest.mark.parametrize("name", ["ladder", "steps"])
def test_what_an_option_must_give_is_asked_for(name: str) -> None:
    config = (
        TrainConfig(family="mlp", schedule=ScheduleConfig(name=name))
        if name == "ladder"
        else TrainConfig(family="mlp", dropout=DropoutConfig(schedule=name))
    )
    with pytest.raises(ConfigError, match=f"'{name}' needs the option rates"):
        check_config(config)


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ConfigError, match="'rotation'"):
        check_config(TrainConfig(family="mlp", augment={"rotation": 3.0}))


def test_values_come_in_the_types_of_their_kinds() -> None:
    rows = {
        "float": OptionInfo(help="-", default=0.5),
        "int": OptionInfo(help="-", default=3, kind="int", high=9),
        "flag": OptionInfo(help="-", default=True, kind="flag"),
        "floats": OptionInfo(help="-", default=(), kind="list", high=9),
        "ints": OptionInfo(help="-", default=(), kind="list", high=9, whole=True),
    }
    defaults = read_options("test", rows, {})
    assert repr(defaults) == "{'float': 0.5, 'int': 3, 'flag': True, 'floats': (), 'ints': ()}"
    given = read_options(
        "test", rows, {"float": 1, "int": 0, "flag": False, "floats": (2, 1.5), "ints": (2, 1)}
    )
    expected = "{'float': 1.0, 'int': 0, 'flag': False, 'floats': (2.0, 1.5), 'ints': (2, 1)}"
    assert repr(given) == expected


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [
        (OptionInfo(help="-", default=0.5), 2, "x must be a number between 0 and 1, but is 2"),
        (
            OptionInfo(help="-", default=3, kind="int", limits=(2, 9)),
            1,
            "x must be a whole number between 2 and 9, but is 1",
        ),
        (OptionInfo(help="-", default=True, kind="flag"), 1, "x must be true or false, but is 1"),
        (
            OptionInfo(help="-", default=(), kind="list", whole=True, rising=True),
            (1, 0),
            "x must be a list of rising whole numbers between 0 and 1, but is (1, 0)",
        ),
    ],
)
def test_the_message_says_what_is_expected(row: OptionInfo, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        row.read("x", value)
    assert str(caught.value) == expected
