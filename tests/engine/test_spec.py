import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import EarlyStopping
from hpsearch.data.dataset import ImageShape
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import SplitSpec
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.study_file import load_study
from hpsearch.errors import SearchError
from hpsearch.families import Range, space_fingerprint, space_of
from hpsearch.training.objectives import OBJECTIVES


def test_the_name_is_the_datas_by_default() -> None:
    assert StudySpec(data="some/where/cats.npz").name == "cats"
    assert StudySpec(data="my cats & dogs (2).npz").name == "my-cats-dogs-2"
    assert StudySpec(data="...").name == "search"
    assert StudySpec(data="some/where/cats.npz", name="first").name == "first"


@given(trials=st.integers(1, 200), families=st.integers(1, 6))
def test_shares_add_up_and_differ_by_one_at_most(trials: int, families: int) -> None:
    names = tuple(f"family{number}" for number in range(families))
    shares = list(StudySpec(families=names, trials=trials).shares().values())
    assert sum(shares) == trials
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("name", "../up"),
        ("name", ".hidden"),
        ("name", "x" * 101),
        ("name", "<script>"),
        ("families", ()),
        ("families", ("cnn", "cnn")),
        ("trials", 0),
        ("trials", True),
        ("epochs", -1),
        ("seed", -1),
        ("keep", 0),
        ("precision", "fp16"),
        ("checkpoint_every", -1),
        ("checkpoint_every", 1.5),
        ("non_finite", "stop"),
        ("artifacts", "some"),
        ("objective", "val_acc"),
        ("objective", 5),
        ("name", "hpsearch.db"),
        ("seed", 2**63),
        ("data", 5),
        ("families", "cnn"),
        ("early_stopping", 5),
        ("split", 0.3),
        ("overrides", ["lr"]),
        ("first", {"lr": 1e-3}),
        ("first", ({},)),
        ("first", ("lr",)),
        ("first", ({"lr": (1e-3, 1e-2)},)),
        ("first", ({"lr": Range(1e-3, 1e-2)},)),
        ("first", ({"lr": None},)),
        ("first", ({"ema": "search"},)),
        ("first", ({3: 4},)),
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(SearchError) as caught:
        StudySpec(**{field: value})  # type: ignore[arg-type]
    if field == "first" and isinstance(value, tuple):  # the one that is wrong, of several
        (value,) = value
        if isinstance(value, dict) and value:
            (value,) = value.values()
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


def test_the_record_of_a_specification_is_json() -> None:
    spec = StudySpec(
        overrides={"lr": Range(1e-4, 1e-2), "optimizer": ("sgd", "adamw"), "blocks": 2},
        early_stopping=EarlyStopping(patience=3),
        split=SplitSpec(val=0.1),
    )
    record = json.loads(json.dumps(spec.to_dict()))
    assert record == spec.to_dict()
    assert record["overrides"]["lr"] == {"low": 1e-4, "high": 1e-2}
    assert record["early_stopping"] == {"patience": 3, "min_gain": 0.0}


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = (
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
RANGES = st.tuples(*[st.integers(-9, 9) | st.floats(-9, 9)] * 2).map(
    lambda ends: Range(*sorted(ends))
)
OVERRIDES = VALUES | RANGES | st.lists(VALUES, max_size=3).map(tuple)


@st.composite
def specifications(draw: st.DrawFn) -> StudySpec:
    sources = st.sampled_from(["digits", "some/cats.npz", "/home/me/My Cats"])
    options = st.dictionaries(NAMES, NAMES | st.lists(NAMES, max_size=2).map(tuple), max_size=2)
    data = st.builds(
        DataSpec,
        source=sources,
        size=st.none() | st.tuples(st.integers(1, 64), st.integers(1, 64)),
        gray=st.none() | st.booleans(),
        exclude=st.lists(NAMES, max_size=2).map(tuple),
        options=options,
    )
    split = st.builds(SplitSpec, val=st.floats(0.01, 0.4), seed=st.integers(0, 9))
    families = [("cnn",), ("cnn", "mlp"), ("my own/net.py", "logistic"), ("/a/net.py",)]
    stopping = st.builds(EarlyStopping, patience=st.integers(1, 9), min_gain=st.floats(0, 1))
    configuration = st.dictionaries(
        NAMES, VALUES.filter(lambda value: value != "search"), min_size=1, max_size=3
    )
    return StudySpec(
        data=draw(data | sources),
        name=draw(st.sampled_from(["", "mine", "a.b-c_9"])),
        families=draw(st.sampled_from(families)),
        trials=draw(st.integers(1, 99)),
        epochs=draw(st.integers(1, 99)),
        split=draw(split),
        overrides=draw(st.dictionaries(NAMES, OVERRIDES, max_size=4)),
        first=tuple(draw(st.lists(configuration, max_size=3))),
        early_stopping=draw(st.none() | stopping),
        objective=draw(st.sampled_from([row.name for row in OBJECTIVES])),
        precision=draw(st.sampled_from(["auto", "fp32", "bf16"])),
        memory_format=draw(st.sampled_from(["auto", "channels_last"])),
        execution=draw(st.sampled_from(["auto", "eager"])),
        seed=draw(st.integers(0, 2**63 - 1)),
        keep=draw(st.integers(1, 9)),
        checkpoint_every=draw(st.integers(0, 9)),
        patience=draw(st.integers(0, 9)),
        attempts=draw(st.integers(1, 9)),
        non_finite=draw(st.sampled_from(["fail", "prune"])),
        artifacts=draw(st.sampled_from(["all", "best", "none"])),
    )


@given(specifications())
def test_a_specification_is_read_from_its_record(spec: StudySpec) -> None:
    record = json.loads(json.dumps(spec.to_dict()))
    read = StudySpec.from_dict(record)
    assert read == spec
    assert read.to_dict() == spec.to_dict() == record


def test_every_field_is_in_the_record() -> None:
    assert set(StudySpec().to_dict()) == {field.name for field in dataclasses.fields(StudySpec)}


def test_the_policies_are_read_from_the_record() -> None:
    spec = StudySpec(
        sampler="random", pruner="threshold", pruner_options={"lower": 0.25, "n_warmup_steps": 3}
    )
    read = StudySpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert read == spec
    assert read.pruner_options == {"lower": 0.25, "n_warmup_steps": 3}


@pytest.mark.parametrize(
    "override", [[512, 256], [64], [], ([512, 256], [64], []), ((512, 256), "64"), "512/256"]
)
def test_a_list_among_the_overrides_means_the_same_afterwards(override: Any) -> None:
    spec = StudySpec(families=("mlp",), overrides={"widths": override})
    read = StudySpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert read.to_dict() == spec.to_dict()
    before, after = (space_of("mlp", ImageShape(8, 8, 1), one.overrides) for one in (spec, read))
    assert space_fingerprint(before) == space_fingerprint(after)
    assert before == after


def test_a_list_in_a_configuration_means_the_same_afterwards() -> None:
    spec = StudySpec(first=({"widths": [512, 256]}, {"widths": []}))
    assert StudySpec.from_dict(spec.to_dict()).first == ({"widths": "512/256"}, {"widths": ""})


def test_the_record_of_the_first_version_is_read() -> None:
    record = {
        "data": "some/cats.npz",
        "name": "cats",
        "families": ["logistic", "cnn"],
        "trials": 9,
        "epochs": 5,
        "split": {"val": 0.1, "test": 0.2, "seed": 3},
        "overrides": {"lr": {"low": 1e-4, "high": 1e-2}, "optimizer": ["sgd", "adamw"]},
        "early_stopping": None,
        "precision": "fp32",
        "seed": 7,
        "keep": 2,
    }
    assert StudySpec.from_dict(record) == StudySpec(
        data="some/cats.npz",
        name="cats",
        families=("logistic", "cnn"),
        trials=9,
        epochs=5,
        split=SplitSpec(val=0.1, test=0.2, seed=3),
        overrides={"lr": Range(1e-4, 1e-2), "optimizer": ("sgd", "adamw")},
        precision="fp32",
        seed=7,
        keep=2,
    )


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"speed": 1, "force": 2}, ["newer version", "force, speed", "'mine'"]),
        ({"data": {"source": "digits", "depth": 3}}, ["newer version", "'depth'", "'mine'"]),
        ({"split": {"folds": 5}}, ["newer version", "'folds'"]),
        ({"early_stopping": {"patience": 3, "warmup": 2}}, ["newer version", "'warmup'"]),
        ({"overrides": {"lr": {"low": 0, "high": 1, "step": 2}}}, ["newer version", "'step'"]),
        ({"objective": "val_beauty"}, ["newer version", "'val_beauty'"]),
        ({"families": "cnn"}, ["families", "'cnn'"]),
        ({"split": 3}, ["SplitSpec", "3"]),
    ],
)
def test_a_record_that_cannot_be_read_says_why(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(SearchError) as caught:
        StudySpec.from_dict({**StudySpec(name="mine").to_dict(), **changes})
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


JSON = st.recursive(
    st.none() | VALUES,
    lambda item: st.lists(item, max_size=2) | st.dictionaries(NAMES, item, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from([field.name for field in dataclasses.fields(StudySpec)]), JSON)
def test_a_damaged_record_is_read_or_refused_in_words(field: str, value: Any) -> None:
    record = {**StudySpec(name="mine").to_dict(), field: value}
    try:
        spec = StudySpec.from_dict(record)
    except SearchError:
        return
    assert StudySpec.from_dict(spec.to_dict()) == spec


def test_a_record_must_be_a_mapping() -> None:
    with pytest.raises(SearchError, match="mapping"):
        StudySpec.from_dict(["digits"])  # type: ignore[arg-type]


def test_an_unknown_objective_lists_those_there_are() -> None:
    with pytest.raises(SearchError) as caught:
        StudySpec(objective="accuracy")
    for row in OBJECTIVES:
        assert row.name in str(caught.value)
        assert StudySpec(objective=row.name).to_dict()["objective"] == row.name


def study_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_file_is_python(tmp_path: Path) -> None:
    path = study_file(
        tmp_path,
        "from hpsearch import StudySpec\ntrials = 2 * 3\nstudy = StudySpec(trials=trials)\n",
    )
    assert load_study(path) == StudySpec(trials=6)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = 1\ny = 1 / 0\n", ["line 2", "ZeroDivisionError", "division by zero"]),
        ("x = (\n", ["line 1", "SyntaxError"]),
        ("import no_such_module_at_all\n", ["line 1", "no_such_module_at_all"]),
        ("from hpsearch import StudySpec\nstudy = StudySpec(trials=0)\n", ["trials", "0"]),
        ("study = 3\n", ["study = StudySpec(...)", "3"]),
        ("", ["study = StudySpec(...)", "None"]),
        ("import sys\nsys.exit()\n", ["line 2", "SystemExit"]),
        ("from hpsearch import StudySpec\nstudy = StudySpec(trails=3)\n", ["line 2", "trails"]),
    ],
)
def test_a_study_file_that_is_wrong_says_where(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = study_file(tmp_path, text)
    with pytest.raises(SearchError) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_data_can_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "cats.npz"
    assert (
        StudySpec(data=path)
        == StudySpec(data=str(path))
        == StudySpec(data=DataSpec(source=str(path)))
    )


def test_a_study_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no study file"):
        load_study(tmp_path / "nothing.py")


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "3"])
def test_one_seed_for_all_trainings_is_a_seed(seed: object) -> None:
    with pytest.raises(SearchError, match="training_seed must be"):
        StudySpec(training_seed=seed)  # type: ignore[arg-type]
