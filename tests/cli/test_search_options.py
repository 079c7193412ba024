"""What the options of `hpsearch search` make of a study file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from hpsearch import StudySpec
from hpsearch.cli.main import app
from hpsearch.cli.options import DataOptions, SplitOptions
from hpsearch.cli.study import parse_settings, study_spec
from hpsearch.cli.usage import study_defaults
from hpsearch.engine.pruners import PRUNERS
from hpsearch.engine.samplers import SAMPLERS
from hpsearch.errors import SearchError
from hpsearch.training.costs import COSTS
from hpsearch.training.objectives import OBJECTIVES

Run = Callable[[str], tuple[int, str, str]]


def options() -> dict[str, Any]:
    command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    return {parameter.name: parameter for parameter in command.params}


def spec_of(study: Path | None = None, data: str | None = None, **values: Any) -> StudySpec:
    values = {"families": None, "overrides": [], **values}
    return study_spec(study, data, DataOptions(), SplitOptions(), **values)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.py"
    path.write_text(
        "from hpsearch import StudySpec\n"
        "study = StudySpec(\n"
        "    sampler='tpe', sampler_options={'n_startup_trials': 4},\n"
        "    pruner='percentile', pruner_options={'percentile': 30.0, 'n_startup_trials': 2},\n"
        "    patience=9, attempts=3, first=({'lr': 1e-3},),\n"
        ")\n",
        encoding="utf-8",
    )
    return path


def test_without_options_the_file_stays_as_it_is(study: Path) -> None:
    spec = spec_of(study)
    assert spec.sampler_options == {"n_startup_trials": 4}
    assert (spec.pruner, spec.patience, spec.attempts) == ("percentile", 9, 3)
    assert spec.pruner_options == {"percentile": 30.0, "n_startup_trials": 2}
    assert spec.first == ({"lr": 1e-3},)
    assert spec_of() == StudySpec()


def test_given_settings_replace_those_of_the_same_name(study: Path) -> None:
    spec = spec_of(study, pruner_set=["percentile=40"], patience=0, attempts=1)
    assert spec.pruner_options == {"percentile": 40, "n_startup_trials": 2}
    assert spec.sampler_options == {"n_startup_trials": 4}
    assert (spec.patience, spec.attempts) == (0, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"pruner": "percentile"}, {"percentile": 30.0, "n_startup_trials": 2}),
        ({"pruner": "median"}, {}),
        ({"pruner": "median", "pruner_set": ["n_startup_trials=7"]}, {"n_startup_trials": 7}),
        (
            {"pruner": "percentile", "pruner_set": ["n_startup_trials=7"]},
            {"percentile": 30.0, "n_startup_trials": 7},
        ),
    ],
)
def test_the_files_settings_are_for_the_files_pruner(
    study: Path, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    spec = spec_of(study, **given)
    assert spec.pruner == given["pruner"]
    assert spec.pruner_options == expected
    assert (spec.sampler, spec.sampler_options) == ("tpe", {"n_startup_trials": 4})


def test_the_files_settings_are_for_the_files_sampler(study: Path) -> None:
    spec = spec_of(study, sampler="random")
    assert (spec.sampler, spec.sampler_options) == ("random", {})
    assert spec.pruner_options == {"percentile": 30.0, "n_startup_trials": 2}


@pytest.fixture
def two_families(tmp_path: Path) -> Path:
    path = tmp_path / "two.py"
    path.write_text(
        "from hpsearch import DataSpec, StudySpec\n"
        "study = StudySpec(\n"
        "    name='two', families=('mlp', 'cnn'),\n"
        "    data=DataSpec(\n"
        "        source='hands/info.csv', size=(32, 32), fit='pad', exclude=('no',),\n"
        "        options={'label': 'a,b', 'images': 'hands'},\n"
        "    ),\n"
        "    overrides={'lr': 0.1, 'mlp.layers': 2, 'cnn.blocks': (1, 2)},\n"
        "    first=({'momentum': 0.9, 'cnn.blocks': 2}, {'mlp.layers': 2}),\n"
        ")\n",
        encoding="utf-8",
    )
    return path


def test_chosen_families_are_told_nothing_of_the_others(two_families: Path) -> None:
    spec = spec_of(two_families, families=["cnn"])
    assert spec.families == ("cnn",)
    assert spec.overrides == {"lr": 0.1, "cnn.blocks": (1, 2)}
    assert spec.first == ({"momentum": 0.9, "cnn.blocks": 2},)
    # But what the command line itself says of another family is a mistake.
    wrong = spec_of(two_families, families=["cnn"], overrides=["mlp.layers=3"])
    assert wrong.overrides["mlp.layers"] == 3


@pytest.mark.parametrize(
    ("given", "overrides", "first"),
    [
        (
            "blocks=1",
            {"lr": 0.1, "mlp.layers": 2, "blocks": 1},
            ({"momentum": 0.9}, {"mlp.layers": 2}),
        ),
        (
            "mlp.layers=3",
            {"lr": 0.1, "mlp.layers": 3, "cnn.blocks": (1, 2)},
            ({"momentum": 0.9, "cnn.blocks": 2},),
        ),
        (
            "cnn.lr=0.2",
            {"lr": 0.1, "mlp.layers": 2, "cnn.blocks": (1, 2), "cnn.lr": 0.2},
            ({"momentum": 0.9, "cnn.blocks": 2}, {"mlp.layers": 2}),
        ),
    ],
)
def test_the_command_line_comes_before_the_file(
    two_families: Path, given: str, overrides: dict[str, Any], first: tuple[Any, ...]
) -> None:
    spec = spec_of(two_families, overrides=[given])
    assert spec.overrides == overrides
    assert spec.first == first


def test_what_the_file_tries_first_can_be_left_out(two_families: Path) -> None:
    assert spec_of(two_families, no_first=True).first == ()


def test_data_elsewhere_are_read_as_the_file_says(two_families: Path, tmp_path: Path) -> None:
    table, arrays = tmp_path / "moved.csv", tmp_path / "moved.npz"
    table.touch()
    arrays.touch()
    spec = spec_of(two_families, str(table))
    assert spec.name == "two"
    assert spec.data_spec == dataclasses.replace(spec_of(two_families).data_spec, source=str(table))
    other = spec_of(two_families, str(arrays)).data_spec
    assert other.options == {}  # of another kind of source
    assert (other.size, other.fit, other.exclude) == ((32, 32), "pad", ("no",))
    assert spec_of(None, str(arrays)).name == "moved"
    nameless = tmp_path / "nameless.py"
    nameless.write_text("from hpsearch import StudySpec\nstudy = StudySpec(data='here.npz')\n")
    assert spec_of(nameless).name == "here"
    assert spec_of(nameless, str(arrays)).name == "moved"
    assert spec_of(nameless, str(arrays), name="mine").name == "mine"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("3.0", 3.0),
        ("true", True),
        ("No", False),
        ("auto", "auto"),
        ("a=b", "a=b"),
        (" 7 ", 7),
    ],
)
def test_settings_are_numbers_truths_or_texts(text: str, value: object) -> None:
    (parsed,) = parse_settings("--sampler-set", [f"some_name={text}"]).values()
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.text(max_size=12) | st.from_regex(r"[a-z]{1,3} ?= ?[a-z0-9.=-]{0,5}", fullmatch=True))
def test_any_setting_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        settings = parse_settings("--pruner-set", [text])
    except SearchError as error:
        message = str(error)
    else:
        ((name, value),) = settings.items()
        assert name.strip() == name != ""
        assert value != ""
        return
    assert repr(text) in message
    assert "NAME=VALUE" in message


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("--sampler-set points", ["--sampler-set", "NAME=VALUE", "'points'"]),
        ("--pruner-set =3", ["--pruner-set", "NAME=VALUE", "'=3'"]),
        ("--sampler-set a=1 --sampler-set a=2", ["--sampler-set a", "twice"]),
        ("--sampler grids", ["'grids'", *[row.name for row in SAMPLERS]]),
        ("--pruner medium", ["'medium'", *[row.name for row in PRUNERS]]),
        ("--sampler-set speed=3", ["'speed'"]),
        ("--pruner threshold --pruner-set lower=low", ["lower", "'low'"]),
        ("--patience -1", ["patience", "-1"]),
        ("--attempts 0", ["attempts", "0"]),
        ("speed.py", ["first, configuration 1", "'speed'"]),
        ("lr.py", ["first, configuration 2 for mlp", "lr must be 0.01 to 0.1, but is 0.001"]),
    ],
)
def test_what_is_wrong_gets_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, command: str, parts: list[str]
) -> None:
    text = "from hpsearch import StudySpec, Range\nstudy = StudySpec(families=('mlp',), {})\n"
    (tmp_path / "speed.py").write_text(text.format("first=({'speed': 3},)"))
    lr = "first=({'layers': 1}, {'lr': 1e-3}), overrides={'lr': Range(0.01, 0.1)}"
    (tmp_path / "lr.py").write_text(text.format(lr))
    code, out, err = run(f"search {command}")
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert not (tmp_path / "runs").exists()


def test_the_help_names_every_row_of_the_tables() -> None:
    for option, rows in (
        ("sampler", SAMPLERS),
        ("pruner", PRUNERS),
        ("objective", (*OBJECTIVES, *COSTS)),
    ):
        for row in rows:
            assert row.name in options()[option].help


def test_the_help_has_the_defaults_of_the_specification(run: Run) -> None:
    fields = {field.name: field.default for field in dataclasses.fields(StudySpec)}
    plain = {name: value for name, value in fields.items() if isinstance(value, int | str)}
    del plain["objective"]  # which the source has as a name
    assert study_defaults().items() >= plain.items()
    assert study_defaults()["family"] == ",".join(StudySpec().families)
    text = " ".join(run("search --help")[1].split())
    for option in ("trials", "sampler", "keep", "attempts", "seed", "checkpoint_every"):
        told = text.partition(f"--{option.replace('_', '-')} ")[2].partition(" --")[0]
        assert told.endswith(f"[default: {fields[option]}]")
    assert "[default: 30]" not in run("ablate --help")[1]


def test_families_may_have_commas_as_objectives_have(tmp_path: Path) -> None:
    own = tmp_path / "my,net.py"
    own.touch()
    spec = spec_of(families=["cnn, mlp", str(own)])
    assert spec.families == ("cnn", "mlp", str(own.resolve()))


def test_defaults_live_in_the_specification_alone() -> None:
    for name in ("sampler", "sampler_set", "pruner", "pruner_set", "patience", "attempts"):
        assert options()[name].default is None
        assert "default" not in options()[name].help
