import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import EarlyStopping
from hpsearch.data.splits import SplitSpec
from hpsearch.engine.spec import StudySpec, load_study
from hpsearch.errors import SearchError
from hpsearch.families import Range
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
        ("objective", "val_acc"),
        ("objective", 5),
        ("name", "hpsearch.db"),
        ("seed", 2**63),
        ("data", 5),
        ("families", "cnn"),
        ("early_stopping", 5),
        ("split", 0.3),
        ("overrides", ["lr"]),
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(SearchError) as caught:
        StudySpec(**{field: value})  # type: ignore[arg-type]
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
    assert StudySpec(data=tmp_path / "cats.npz") == StudySpec(data=str(tmp_path / "cats.npz"))  # type: ignore[arg-type]


def test_a_study_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no study file"):
        load_study(tmp_path / "nothing.py")
