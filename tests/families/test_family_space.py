"""Search spaces and what overrides make of them."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError, SpaceError
from hpsearch.families import (
    Override,
    Parameter,
    Range,
    Suggester,
    build_model,
    check_overrides,
    default_params,
    explore,
    family_names,
    parse_override,
    space_fingerprint,
    space_of,
    suggest_config,
    whole_space,
)
from hpsearch.families._unknown import _OTHERWISE
from hpsearch.training.optimizers import optimizer_info

SHAPE = ImageShape(8, 8, 1)
FAMILIES = family_names()
CLASSIC = ("logistic", "mlp", "cnn")  # trained from random weights, with adamw or sgd
LR = Parameter(name="lr", kind="float", low=1e-4, high=0.5, log=True)
LAYERS = Parameter(name="layers", kind="int", low=1, high=4)
WIDTH = Parameter(name="width", kind="categorical", choices=(64, 128, 256))
OPTIMIZER = Parameter(name="optimizer", kind="categorical", choices=("adamw", "sgd"))


def space(name: str, **overrides: Override) -> dict[str, Parameter]:
    return {row.name: row for row in space_of(name, SHAPE, overrides)}


class TestExplore:
    @pytest.mark.parametrize("name", CLASSIC)
    def test_a_conditional_parameter_is_found(self, name: str) -> None:
        assert space(name)["momentum"].high == 0.99
        assert "momentum" in space(name, optimizer="sgd")
        assert "momentum" not in space(name, optimizer="adamw")

    def test_a_parameter_of_one_choice_or_one_end_is_found(self) -> None:
        def suggest(trial: Any) -> None:
            s = Suggester(trial)
            if s.categorical("kind", ("a", "b", "c")) == "b":
                s.float("of b", 0.0, 1.0)
            if s.int("layers", 1, 4) == 4:
                s.int("of many", 2, 3)
            if s.int("heads", 1, 4) == 1:
                s.int("of one", 2, 3)

        found = {row.name: row for row in explore(suggest)}
        assert set(found) == {"kind", "of b", "layers", "of many", "heads", "of one"}
        assert found["kind"].choices == ("a", "b", "c")
        assert (found["of many"].low, found["of many"].high) == (2, 3)

    def test_a_parameter_of_a_parameter_is_found(self) -> None:
        def suggest(trial: Any) -> None:
            s = Suggester(trial)
            if s.categorical("one", ("a", "b")) == "b" and s.categorical("two", ("a", "b")) == "b":
                s.float("three", 0.0, 1.0)

        assert [row.name for row in explore(suggest)] == ["one", "two", "three"]

    def test_one_name_with_two_ranges_is_an_error(self) -> None:
        def suggest(trial: Any) -> None:
            s = Suggester(trial)
            s.float("x", 0.0, 1.0 if s.categorical("kind", ("a", "b")) == "a" else 2.0)

        with pytest.raises(SpaceError, match=r"'x'.* the high 1\.0 and, .*, 2\.0; .*the same"):
            explore(suggest)

    def test_what_else_differs_is_named_too(self) -> None:
        def suggest(trial: Any) -> None:
            s = Suggester(trial)
            s.float("x", 0.0, 1.0, help=s.categorical("kind", ("a", "b")))

        with pytest.raises(SpaceError, match=r"'x'.* the help 'a' and, .*, 'b'"):
            explore(suggest)

    def test_what_is_infeasible_is_passed_over(self) -> None:
        def suggest(trial: Any) -> None:
            s = Suggester(trial)
            kind = s.categorical("kind", ("a", "b", "c"))
            if kind == "a":
                raise InfeasibleError("a is too large")
            layers = s.int("layers", 1, 4)
            if kind == "c":
                s.float("of c", 0.0, 1.0)
            if layers == 4:
                raise InfeasibleError("too deep")

        rows = {row.name: row for row in explore(suggest)}
        assert {name: row.condition for name, row in rows.items()} == {
            "kind": {},
            "layers": {},
            "of c": {"kind": ("c",)},
        }
        assert rows["kind"].choices == ("a", "b", "c")

    def test_where_nothing_is_feasible_the_first_reason_is_told(self) -> None:
        def suggest(trial: Any) -> None:
            kind = Suggester(trial).categorical("kind", ("a", "b"))
            raise InfeasibleError(f"{kind} is too large")

        with pytest.raises(InfeasibleError, match="a is too large"):
            explore(suggest)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_the_learning_rates_are_those_of_the_optimizers(self, name: str) -> None:
        rows = [optimizer_info(choice) for choice in space(name)["optimizer"].choices]  # type: ignore[arg-type]
        lr = space(name)["lr"]
        assert lr.log
        assert lr.low == min(row.lr[0] for row in rows)
        assert lr.high == max(row.lr[1] for row in rows)
        for row in rows:
            alone = space(name, optimizer=row.name)["lr"]
            assert (alone.low, alone.high) == row.lr


class TestFingerprint:
    ROWS = (LR, LAYERS, WIDTH)

    def test_it_does_not_follow_the_order_of_the_parameters(self) -> None:
        assert space_fingerprint(self.ROWS) == space_fingerprint(self.ROWS[::-1])

    @pytest.mark.parametrize(
        "rows",
        [
            (LR, LAYERS),
            (*ROWS, OPTIMIZER),
            (Parameter(name="lr", kind="float", low=1e-4, high=0.6, log=True), LAYERS, WIDTH),
            (Parameter(name="lr", kind="float", low=1e-5, high=0.5, log=True), LAYERS, WIDTH),
            (Parameter(name="lr", kind="float", low=1e-4, high=0.5), LAYERS, WIDTH),
            (Parameter(name="eta", kind="float", low=1e-4, high=0.5, log=True), LAYERS, WIDTH),
            (LR, Parameter(name="layers", kind="float", low=1, high=4), WIDTH),
            (LR, LAYERS, Parameter(name="width", kind="categorical", choices=(64, 128))),
            (LR, LAYERS, Parameter(name="width", kind="categorical", choices=("64", "128", "256"))),
        ],
        ids=["less", "more", "high", "low", "log", "name", "kind", "choices", "type of choices"],
    )
    def test_it_changes_with_the_space(self, rows: tuple[Parameter, ...]) -> None:
        assert space_fingerprint(rows) != space_fingerprint(self.ROWS)

    def test_an_override_changes_it(self) -> None:
        plain = space_fingerprint(space_of("cnn", SHAPE))
        assert plain == space_fingerprint(space_of("cnn", SHAPE, {}))
        narrowed = space_of("cnn", SHAPE, {"dropout": Range(0.0, 0.5)})
        assert plain != space_fingerprint(narrowed)


def test_a_range_rises() -> None:
    assert Range(1, 1).low == 1
    for low, high in ((2, 1), (math.nan, 1), (1, math.nan)):
        with pytest.raises(SpaceError, match="must rise") as caught:
            Range(low, high)
        assert repr(low) in str(caught.value)
        assert repr(high) in str(caught.value)


class TestNarrowing:
    @pytest.mark.parametrize(
        ("row", "override", "expected"),
        [
            (LR, 0.01, (0.01, 0.01)),
            (LR, Range(1e-3, 1e-2), (1e-3, 1e-2)),
            (LR, Range(1e-4, 0.5), (1e-4, 0.5)),
            (LAYERS, 2, (2, 2)),
            (LAYERS, 2.0, (2, 2)),
            (LAYERS, Range(2, 3), (2, 3)),
        ],
    )
    def test_a_number(
        self, row: Parameter, override: Override, expected: tuple[float, float]
    ) -> None:
        narrowed = row.narrowed(override)
        assert (narrowed.low, narrowed.high) == expected
        assert (narrowed.name, narrowed.kind, narrowed.log) == (row.name, row.kind, row.log)

    @pytest.mark.parametrize(
        ("row", "override", "expected"),
        [
            (WIDTH, 64, (64,)),
            (WIDTH, (256, 64), (64, 256)),
            (OPTIMIZER, "sgd", ("sgd",)),
            (OPTIMIZER, ("sgd", "adamw"), ("adamw", "sgd")),
            (LR, (0.2, 0.1, 0.2), (0.2, 0.1)),
            (LAYERS, (1.0, 3), (1, 3)),
        ],
    )
    def test_a_choice(
        self, row: Parameter, override: Override, expected: tuple[object, ...]
    ) -> None:
        assert row.narrowed(override).choices == expected

    @pytest.mark.parametrize(
        ("row", "override", "told"),
        [
            (LR, 1.0, "1.0"),
            (LR, 0, "0"),
            (LR, "fast", "'fast'"),
            (LR, True, "True"),
            (LR, math.nan, "nan"),
            (LR, math.inf, "inf"),
            (LR, (0.1, 5.0), "5.0"),
            (LR, (), "number"),
            (LR, (0.1, Range(0.2, 0.3)), "0.1, Range"),
            (LR, Range(1e-3, 1.0), "0.001..1"),
            (LR, Range(0, 10**400), ".."),
            (LAYERS, 5, "5"),
            (LAYERS, 2.5, "2.5"),
            (LAYERS, Range(1.5, 3), "1.5..3"),
            (WIDTH, 100, "100"),
            (WIDTH, (64, 100), "64, 100"),
            (WIDTH, Range(64, 128), "64..128"),
            (WIDTH, "64", "'64'"),
            (OPTIMIZER, "lion", "'lion'"),
            (OPTIMIZER, (), "optimizer"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_what_is_not_inside_is_refused_with_the_range_and_the_value(
        self, row: Parameter, override: Override, told: str
    ) -> None:
        with pytest.raises(SpaceError) as caught:
            row.narrowed(override)
        message = str(caught.value)
        assert message.startswith(f"{row.name} must be")
        assert told in message
        if "whole" not in message:
            assert str(row) in message


class TestNearest:
    @pytest.mark.parametrize(
        ("row", "value", "nearest"),
        [
            (LR, 0.01, 0.01),
            (LR, 7.0, 0.5),
            (LR, 1e-9, 1e-4),
            (LAYERS, 9, 4),
            (LAYERS, 3, 3),
            (WIDTH, 128, 128),
            (WIDTH, 1000, 256),
            (WIDTH, 1, 64),
            (WIDTH, 130, 128),
            (OPTIMIZER, "sgd", "sgd"),
            (OPTIMIZER, "lion", "adamw"),
        ],
    )
    def test_it_is_the_value_or_what_comes_nearest(
        self, row: Parameter, value: Any, nearest: object
    ) -> None:
        assert row.nearest(value) == nearest
        assert type(row.nearest(value)) is type(nearest)

    def test_the_middle_is_on_the_scale_of_the_parameter(self) -> None:
        assert LR.middle == pytest.approx(math.sqrt(1e-4 * 0.5))
        assert Parameter(name="x", kind="float", low=1, high=4).middle == 2.5
        assert LAYERS.middle in (2, 3)
        assert OPTIMIZER.middle == "adamw"


class TestSuggester:
    def test_without_overrides_the_trial_decides(self) -> None:
        s = Suggester(optuna.trial.FixedTrial({"lr": 0.02, "layers": 3, "name": "b", "width": 128}))
        assert s.float("lr", 1e-4, 0.5, log=True) == 0.02
        assert s.int("layers", 1, 4) == 3
        assert s.categorical("name", ("a", "b")) == "b"
        assert s.number("width", (64, 128)) == 128

    def test_overrides_fix_narrow_and_restrict_what_the_trial_is_asked_for(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trial = study.ask()
        s = Suggester(
            trial,
            {"lr": 0.01, "layers": Range(2, 3), "name": ("c", "a"), "width": 128, "unasked": 1},
        )
        assert s.float("lr", 1e-4, 0.5, log=True) == 0.01
        assert s.int("layers", 1, 4) in (2, 3)
        assert s.categorical("name", ("a", "b", "c")) in ("a", "c")
        assert s.number("width", (64, 128)) == 128
        asked = trial.distributions
        assert (asked["lr"].low, asked["lr"].high, asked["lr"].log) == (0.01, 0.01, True)  # type: ignore[attr-defined]
        assert (asked["layers"].low, asked["layers"].high) == (2, 3)  # type: ignore[attr-defined]
        assert asked["name"].choices == ("a", "c")  # type: ignore[attr-defined]
        assert asked["width"].choices == (128,)  # type: ignore[attr-defined]

    def test_all_that_could_have_been_chosen_is_told(self) -> None:
        s = Suggester(
            optuna.create_study().ask(),
            {"name": ("c", "a"), "size": Range(8, 100), "width": (64, 32)},
        )
        s.categorical("name", ("a", "b", "c"))
        s.categorical("other", ("a", "b"))
        s.categorical("kind", ("a", "b"), off="b")
        assert s.choices("name") == ("a", "c")
        assert s.choices("other") == ("a", "b")
        assert s.choices("kind") == ("b",)
        s.number("size", (32, 64), least=1, off=0)
        s.number("width", (32, 64), least=1)
        s.number("height", (32, 64), off=0)
        assert s.extremes("size") == (8, 100)
        assert s.extremes("width") == (32, 64)
        assert s.extremes("height") == (0, 0)

    def test_an_override_outside_is_refused(self) -> None:
        s = Suggester(optuna.create_study().ask(), {"lr": 7.0})
        with pytest.raises(SpaceError, match=r"lr must be within .* but got 7\.0"):
            s.float("lr", 1e-4, 0.5)


class TestCheckOverrides:
    def test_a_name_may_be_in_some_of_the_families_only(self) -> None:
        check_overrides(("logistic", "mlp", "cnn"), SHAPE, {"layers": 2, "convs": 1, "lr": 1e-3})

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("learning_rate", "lr"),
            ("Weight-Decay", "weight_decay"),
            ("wd", "weight_decay"),
            ("batch", "batch_size"),
            ("mlp.epoch", "epochs"),
        ],
    )
    def test_what_is_called_otherwise_elsewhere_is_known(self, name: str, meant: str) -> None:
        told = f"unknown parameter '{name}'; did you mean '{meant}'?"
        with pytest.raises(SpaceError, match=told) as caught:
            check_overrides(("mlp", "cnn"), SHAPE, {name: 1})
        assert len(str(caught.value)) < 150

    def test_all_other_names_mean_parameters_of_a_family(self) -> None:
        shape = ImageShape(64, 64, 3)
        known = {name for family in CLASSIC for name in whole_space(family, shape)}
        assert set(_OTHERWISE.values()) <= known
        assert not set(_OTHERWISE) & known

    def test_a_name_that_none_has_is_named_beside_all_that_there_are(self) -> None:
        with pytest.raises(SpaceError, match="mlp have") as caught:
            check_overrides(("logistic", "mlp"), SHAPE, {"speed": 1e-3})
        for row in (*space_of("logistic", SHAPE), *space_of("mlp", SHAPE)):
            assert row.name in str(caught.value)
        with pytest.raises(SpaceError, match="'convs'"):
            check_overrides(("logistic", "mlp"), SHAPE, {"convs": 1})

    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ({"lr": 3e3}, r"lr must be within 1e-12 to 1000, but got 3000\.0"),
            ({"batch_size": 0}, "batch_size must be one of 16, .* number from 1, but got 0"),
            ({"batch_size": 1.5}, "batch_size must be one of 16, .* number from 1, but got 1.5"),
            ({"optimizer": "lion"}, "optimizer must be one of adamw, sgd, .*, but got 'lion'"),
            (
                {"batch_size": Range(16, math.inf)},
                r"batch_size must be a finite number from 1, but got 16\.\.inf",
            ),
            ({"batch_size": Range(16, 10**400)}, "batch_size must be a finite number from 1"),
            ({"ema": 1.0}, "ema must be within 0 to 0.999999, but got 1.0"),
            ({"weight_decay": Range(0.0, 0.1)}, "weight_decay .* log scale.* above 0"),
            ({"rotate": "a"}, "rotate must be a number, 0 to 180, but got 'a'$"),
            ({"lr": "1e-4-1e-2"}, r"but got '1e-4-1e-2'; a range is written 1e-4\.\.1e-2"),
            ({"speed": 1}, "unknown parameter 'speed'; cnn has activation, "),
            ({"lr_ladder": "search"}, "lr_ladder is a list.*lr_ladder=0.01/0.001"),
            ({"lr_ladder": "0.1/fast"}, "lr_ladder must be a list.*'0.1/fast'"),
            ({"dropout_rates": [0.5, 2.0]}, "dropout_rates must be a list.* 0 to 0.95"),
            ({"dropout_epochs": "1/2"}, "does not exist .* what it needs: with dropout_rates$"),
            ({"mlp.lr": 0.1}, "mlp.lr: no family 'mlp' is searched, but cnn"),
            ({"cnn.convss": 1}, "'cnn.convss'; did you mean 'convs'"),
            ({"blocks": Range(1, 4)}, r"blocks must be within 1 to 3, but got 1\.\.4"),
        ],
    )
    def test_a_value_outside_is_told_with_the_range(
        self, override: dict[str, Override], told: str
    ) -> None:
        with pytest.raises(SpaceError, match=told):
            check_overrides(("cnn",), SHAPE, override)


class TestWhatIsNotSearched:
    """Parameters that exist, but are not searched unless an override says so."""

    @staticmethod
    def suggest(trial: Any, **overrides: Override) -> tuple[object, ...]:
        s = Suggester(trial, overrides)
        return (
            s.float("ema", 0.9, 0.99, limits=(0.0, 0.999), off=0.0),
            s.int("heads", 2, 4, off=1),
            s.categorical("kind", ("a", "b"), also=("c",), off="a"),
            s.number("size", (32, 64), least=8, off=0),
            s.flag("wide", off=False),
            s.numbers("widths"),
            s.names("parts"),
            s.categorical("start", ("none",), open=True, off="none"),
        )

    def test_it_has_its_value_and_the_trial_is_not_asked(self) -> None:
        trial = optuna.create_study().ask()
        assert self.suggest(trial) == (0.0, 1, "a", 0, False, (), (), "none")
        assert trial.params == {}

    def test_search_opens_it_over_its_range(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        seen = set()
        for _ in range(40):
            trial = study.ask()
            _, heads, kind, size, wide, *_ = self.suggest(
                trial, heads="search", kind="search", size="search", wide="search"
            )
            seen |= {heads, kind, size, wide}
        assert seen == {2, 3, 4, "a", "b", 32, 64, False, True}
        assert set(trial.params) == {"heads", "kind", "size", "wide"}

    @pytest.mark.parametrize(
        ("name", "override", "place", "value"),
        [
            ("ema", 0.5, 0, 0.5),
            ("ema", 0, 0, 0.0),
            ("heads", 1, 1, 1),  # the value that it has otherwise
            ("kind", "c", 2, "c"),
            ("start", "my.pth", 7, "my.pth"),
            ("start", 2024, 7, "2024"),  # a folder, as --set reads its name
            ("size", 100, 3, 100),
            ("size", 0, 3, 0),
            ("wide", "yes", 4, True),
            ("widths", "512/256", 5, (512, 256)),
            ("widths", [512, 256], 5, (512, 256)),
            ("widths", 512, 5, (512,)),
            ("parts", "fc1/fc*", 6, ("fc1", "fc*")),
        ],
    )
    def test_an_override_gives_it_a_value(
        self, name: str, override: Override, place: int, value: object
    ) -> None:
        trial = optuna.create_study().ask()
        assert self.suggest(trial, **{name: override})[place] == value
        assert set(trial.params) == {name}

    def test_lists_are_choices_of_one_parameter(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        overrides: tuple[Override, ...] = ("8/4", [16, 2], 7)
        seen = {self.suggest(study.ask(), widths=overrides)[5] for _ in range(30)}
        assert seen == {(8, 4), (16, 2), (7,)}

    def test_any_number_of_a_list_becomes_a_range(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        sizes = [self.suggest(study.ask(), size=Range(8, 100))[3] for _ in range(50)]
        assert all(8 <= size <= 100 for size in sizes)  # type: ignore[operator]
        assert len(set(sizes)) > 10

    @pytest.mark.parametrize(
        ("name", "override"),
        [
            ("ema", 1.0),
            ("heads", 5),
            ("kind", "d"),
            ("size", 7),
            ("size", Range(1, 20)),
            ("wide", "maybe"),
            ("widths", "512/x"),
            ("widths", 0),
            ("widths", "3//4"),
            ("widths", 2.5),
            ("parts", 3),
            ("parts", "a//b"),
            ("start", 0.5),
            ("start", True),
        ],
    )
    def test_a_value_beyond_its_limits_is_refused(self, name: str, override: Override) -> None:
        with pytest.raises(SpaceError, match=name):
            self.suggest(optuna.create_study().ask(), **{name: override})

    def test_it_is_listed_with_its_value_and_not_among_those_searched(self) -> None:
        rows = {row.name: row for row in explore(self.suggest, everything=True)}
        assert {name: row.off for name, row in rows.items()} == {
            "ema": 0.0,
            "heads": 1,
            "kind": "a",
            "size": 0,
            "wide": "no",
            "widths": "",
            "parts": "",
            "start": "none",
        }
        assert not any(row.searched for row in rows.values())
        assert explore(self.suggest) == ()

    def test_conditions_are_found(self) -> None:
        def suggest(trial: Any) -> None:
            s = Suggester(trial)
            if s.categorical("kind", ("a", "b", "c")) != "c":
                s.float("of a and b", 0.0, 1.0)
            if not s.numbers("widths"):
                s.int("layers", 1, 4)
            elif s.flag("deep", off=False):
                s.int("depth", 2, 3)

        rows = {row.name: row.condition for row in explore(suggest, everything=True)}
        assert rows == {
            "kind": {},
            "of a and b": {"kind": ("a", "b")},
            "widths": {},
            "layers": {"widths": ("",)},
            "deep": {"widths": ("given",)},
            "depth": {"deep": ("yes",)},
        }


class TestOneFamilysOverrides:
    def test_a_family_has_its_own_before_those_of_all(self) -> None:
        overrides: dict[str, Override] = {"lr": 0.1, "cnn.lr": 0.01, "mlp.layers": 2}
        check_overrides(("cnn", "mlp"), SHAPE, overrides)
        ranges = {
            name: {row.name: (row.low, row.high) for row in space_of(name, SHAPE, overrides)}
            for name in ("cnn", "mlp")
        }
        assert ranges["cnn"]["lr"] == (0.01, 0.01)
        assert ranges["mlp"]["lr"] == (0.1, 0.1)
        assert ranges["mlp"]["layers"] == (2, 2)

    def test_a_name_must_be_in_that_family(self) -> None:
        with pytest.raises(SpaceError, match=r"'cnn\.layers'"):
            check_overrides(("cnn", "mlp"), SHAPE, {"cnn.layers": 2})


def within(row: Parameter) -> st.SearchStrategy[Override]:
    """An override that `row` allows."""
    if row.kind == "categorical":
        some = st.lists(st.sampled_from(row.choices), min_size=1, unique=True).map(tuple)
        return st.sampled_from(row.choices) | some
    numbers: st.SearchStrategy[float] = (
        st.integers(round(row.low), round(row.high))
        if row.kind == "int"
        else st.floats(row.low, row.high)
    )
    ranges = st.tuples(numbers, numbers).map(lambda pair: Range(min(pair), max(pair)))
    return numbers | ranges


@st.composite
def overridden(draw: st.DrawFn) -> tuple[str, dict[str, Override]]:
    """A family, and overrides that fit its space where the optimizer is chosen first."""
    name = draw(st.sampled_from(CLASSIC))
    optimizer = draw(st.sampled_from([None, "adamw", "sgd", ("sgd",), ("sgd", "adamw")]))
    fixed: dict[str, Override] = {} if optimizer is None else {"optimizer": optimizer}
    rows = [row for row in space_of(name, SHAPE, fixed) if row.name != "optimizer"]
    chosen = draw(st.lists(st.sampled_from(rows), unique_by=lambda row: row.name, max_size=5))
    return name, {**fixed, **{row.name: draw(within(row)) for row in chosen}}


@settings(max_examples=150)
@given(overridden(), st.integers(0, 1000))
def test_what_the_check_passes_holds_in_trials_and_defaults(
    case: tuple[str, dict[str, Override]], seed: int
) -> None:
    name, overrides = case
    check_overrides((name,), SHAPE, overrides)
    rows = space(name, **overrides)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    config = suggest(name, trial, overrides)
    defaults = default_params(name, SHAPE, overrides)
    assert defaults
    for default in defaults:
        fixed = optuna.trial.FixedTrial(default)
        suggest(name, fixed, overrides)
        assert fixed.params == default
    for params in (trial.params, *defaults):
        for key, value in params.items():
            row = rows[key]
            assert value in row.choices or row.low <= value <= row.high, f"{key}={value}: {row}"
            assert obeys(value, overrides.get(key)), f"{key}={value}: {overrides[key]}"
    build_model(config, SHAPE, 10)


def suggest(name: str, trial: Any, overrides: dict[str, Override]) -> Any:
    return suggest_config(
        name, trial, SHAPE, epochs=5, seed=0, precision="fp32", overrides=overrides
    )


def obeys(value: object, override: Override | None) -> bool:
    if override is None:
        return True
    if isinstance(override, Range):
        return override.low <= value <= override.high  # type: ignore[operator]
    return value in override if isinstance(override, tuple) else value == override


class TestDefaultsUnderOverrides:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_a_default_that_fits_is_kept_as_it_is(self, name: str) -> None:
        whole = {row.name: row.choices or Range(row.low, row.high) for row in space_of(name, SHAPE)}
        assert default_params(name, SHAPE, whole) == default_params(name, SHAPE)

    def test_what_has_to_be_moved_least_comes_first(self) -> None:
        (first, *_) = default_params("cnn", SHAPE, {"optimizer": "sgd"})
        assert first["lr"] == 0.05
        assert first["momentum"] == 0.9
        (first, *_) = default_params("cnn", SHAPE, {"optimizer": "adamw"})
        assert "momentum" not in first

    def test_a_number_of_a_list_moves_to_the_nearest(self) -> None:
        for params in default_params("mlp", SHAPE, {"batch_size": (16, 32), "width": (64, 128)}):
            assert params["batch_size"] == 32
            assert params["width"] == 128

    @pytest.mark.parametrize("name", ["mlp", "cnn"])
    def test_defaults_that_become_the_same_are_tried_once(self, name: str) -> None:
        assert len(default_params(name, SHAPE)) == 2
        fixed: dict[str, Override] = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-3}
        assert len(default_params(name, SHAPE, fixed)) == 1


NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
WORDS = st.from_regex(r"[a-z_][a-z0-9_-]{0,20}", fullmatch=True).filter(
    lambda text: text not in ("nan", "inf", "infinity")
)


class TestParseOverride:
    @pytest.mark.parametrize(
        ("text", "name", "override"),
        [
            ("lr=1e-3", "lr", 1e-3),
            (" lr = 1e-3 ", "lr", 1e-3),
            ("layers=2", "layers", 2),
            ("optimizer=sgd", "optimizer", "sgd"),
            ("lr=1e-4..1e-2", "lr", Range(1e-4, 1e-2)),
            ("layers=2 .. 3", "layers", Range(2, 3)),
            ("lr=.1...5", "lr", Range(0.1, 0.5)),
            ("batch_size=16,32", "batch_size", (16, 32)),
            ("optimizer=sgd,", "optimizer", ("sgd",)),
            ("schedule=cosine, step", "schedule", ("cosine", "step")),
        ],
    )
    def test_the_forms(self, text: str, name: str, override: Override) -> None:
        parsed = parse_override(text)
        assert parsed == (name, override)
        assert type(parsed[1]) is type(override)

    @pytest.mark.parametrize(
        "text",
        ["", "lr", "=", "lr=", "=1", " = ", "lr=1..", "lr=..1", "lr=a..b", "lr=2..1", "lr=.."],
    )
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(SpaceError) as caught:
            parse_override(text)
        assert "\n" not in str(caught.value)

    @given(WORDS, NUMBERS | WORDS)
    def test_a_value_is_read_as_it_is_written(self, name: str, value: float | str) -> None:
        assert parse_override(f"{name}={value}") == (name, value)

    @given(WORDS, st.tuples(NUMBERS, NUMBERS).map(sorted))
    def test_a_range_is_read_as_it_is_written(self, name: str, ends: list[float]) -> None:
        low, high = ends
        assert parse_override(f"{name}={low}..{high}") == (name, Range(low, high))

    @given(WORDS, st.lists(NUMBERS | WORDS, min_size=2, max_size=5))
    def test_a_list_is_read_as_it_is_written(self, name: str, values: list[float | str]) -> None:
        text = ",".join(str(value) for value in values)
        assert parse_override(f"{name}={text}") == (name, tuple(values))

    @settings(max_examples=300)
    @given(
        st.text()
        | st.text(alphabet="lr=.,-+e019_ naif", max_size=20)
        | st.from_regex(r"(lr|layers|width)=-?[0-9.e,]{0,12}(\.\.)?-?[0-9.e]{0,6}", fullmatch=True)
    )
    def test_any_text_is_an_override_or_a_space_error(self, text: str) -> None:
        try:
            name, override = parse_override(text)
        except SpaceError:
            return
        assert name == name.strip() != ""
        # And any override fits a space or is a space error.
        for row in (LR, LAYERS, WIDTH, OPTIMIZER):
            try:
                narrowed = row.narrowed(override)
            except SpaceError:
                continue
            assert narrowed.choices or row.low <= narrowed.low <= narrowed.high <= row.high

    @pytest.mark.parametrize("digits", [400, 5000])
    def test_a_number_of_very_many_digits_is_refused(self, digits: int) -> None:
        for text in (f"lr={'9' * digits}", f"lr=0..{'9' * digits}", f"layers=1..{'9' * digits}"):
            name, override = parse_override(text)
            with pytest.raises(SpaceError, match=f"{name} must be"):
                check_overrides(("mlp",), SHAPE, {name: override})
