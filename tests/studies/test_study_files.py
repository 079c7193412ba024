"""The studies of the five reference projects: what they try first, and the commands they name."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from study_commands import (
    CLASSES,
    NAMES,
    STUDIES,
    commands,
    config,
    record,
    shape,
    study,
    tried_first,
)

import hpsearch
from hpsearch import StudySpec
from hpsearch.cli.ablate import parse_vary
from hpsearch.cli.main import app
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.engine.ablation_spec import ablation_spec
from hpsearch.families import build_model, check_first, check_overrides
from hpsearch.families.cnn import PRESETS as CNNS
from hpsearch.families.mlp import PRESETS as MLPS
from hpsearch.training.dropout import ScheduledDropout, set_dropout
from hpsearch.training.model import StagedModel, parameter_counts


def model(name: str, family: str, number: int = 0) -> StagedModel:
    """The untrained network of one of the first trials."""
    tried = config(name, family, number)
    return build_model(tried, input_shape(tried.input, shape(name)), CLASSES[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_short_and_needs_the_public_names_only(name: str) -> None:
    text = (STUDIES / f"{name}.py").read_text("utf-8")
    assert 20 <= text.count("\n") <= 60
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    for row in imports:
        assert isinstance(row, ast.ImportFrom)
        assert row.module == "hpsearch"
        assert {alias.name for alias in row.names} <= set(hpsearch.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_tried_first_leaves_trials_to_the_sampler(name: str) -> None:
    spec = study(name)
    assert spec.name == name
    for family in spec.families:
        assert 2 * len(tried_first(name, family)) < spec.shares()[family]


BEST: tuple[tuple[str, str, int, Mapping[str, Any]], ...] = (
    ("hands", "cnn", 0, {"preset": "hands6", "image_size": 32, "optimizer": "sgd", "rotate": 0}),
    ("hands", "resnet", 0, {"depth": 18, "head": "", "freeze_depth": 4, "image_size": 224}),
    ("caltech101", "alexnet", 0, {"weights": "imagenet", "optimizer": "sgd", "batch_size": 256}),
    ("caltech101", "alexnet", 1, {"weights": "none", "init": "xavier", "batch_size": 256}),
    ("caltech101", "alexnet", 2, {"jitter": 0.2, "hflip": 0.5, "rotate": 20, "batch_size": 256}),
    ("caltech101", "resnet", 0, {"depth": 34, "freeze_depth": 5, "batch_size": 16, "jitter": 0}),
    ("photos", "cnn", 0, {"optimizer": "adam", "lr": 1e-4, "batch_size": 100, "dropout": 0}),
    ("photos", "resnet", 0, {"depth": 101, "pool": "flat", "freeze_depth": 5, "batch_size": 100}),
    ("sign_language", "mlp", 0, {"activation": "tanh", "dropout": 0.5, "dropout_depth": "flat"}),
    ("sign_language", "mlp", 1, {"dropout": 0.9, "dropout_depth": "falling", "rotate": 25}),
    ("sign_language", "alexnet", 0, {"weights": "imagenet", "freeze_depth": 7}),
    ("stl10", "mlp", 1, {"preset": "stl-fc5"}),
    ("stl10", "mlp", 2, {"preset": "stl-fc7"}),
    ("stl10", "mobilenet", 0, {"version": "v2", "head": "512/256", "freeze_depth": 0}),
    ("stl10", "mobilenet", 1, {"version": "v2", "head": "512/256", "freeze_depth": 5}),
)


@pytest.mark.parametrize(("name", "family", "number", "values"), BEST)
def test_a_search_starts_where_the_author_ended(
    name: str, family: str, number: int, values: Mapping[str, Any]
) -> None:
    params = tried_first(name, family)[number]
    assert {key: params[key] for key in values} == values


def test_the_networks_tried_first_are_those_of_the_reports() -> None:
    assert config("hands", "cnn", 0).options == CNNS["hands6"]
    assert config("stl10", "cnn", 0).options == CNNS["stl4"]
    assert config("stl10", "mlp", 0).options == MLPS["stl-fc3"]
    assert config("sign_language", "mlp", 0).options == MLPS["signs"]
    assert parameter_counts(model("stl10", "logistic"))[0] == 122_890
    assert parameter_counts(model("stl10", "cnn"))[0] == 8_807_106


def test_the_photos_network_is_the_preset_spelled_out_so_that_its_depth_can_vary() -> None:
    ours, preset = config("photos", "cnn", 0).options, CNNS["photos6x5"]
    # BatchNorm takes a bias away again, and there is no dropout to be placed.
    free = {"bias", "head_dropout"}
    assert {k: v for k, v in ours.items() if k not in free} == {
        k: v for k, v in preset.items() if k not in free
    }
    assert config("photos", "cnn", 0).dropout.rate == 0
    network = model("photos", "cnn")
    assert network.state_dict()["stages.head.2.weight"].shape == (1000, 2304)


def test_dropout_falls_from_the_input_as_in_the_report() -> None:
    tried = config("sign_language", "mlp", 1)
    network = model("sign_language", "mlp", 1)
    set_dropout(network, tried.dropout.rate, tried.dropout.depth)
    rates = [m.p for m in network.modules() if isinstance(m, ScheduledDropout)]
    assert rates == pytest.approx([0.9, 0.6, 0.3])


def _context(arguments: list[str]) -> typer.Context:
    """The command's, with its options read; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="hpsearch")
    while hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, arguments)
        context = command.make_context(name, arguments, parent=context)
    return context


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_docstring_are_read(name: str) -> None:
    given = commands(name)
    assert ["search", f"studies/{name}.py"] in [command[:2] for command in given]
    ablated = 0
    for arguments in given:
        context = _context(arguments)
        if arguments[0] == "ablate":
            assert context.params["search"] == study(name).name
            ablated += 1
    assert ablated
    names = [_context(arguments).params.get("name") for arguments in given if "--name" in arguments]
    assert len(names) == len(set(names))  # or one would be refused after the other


@pytest.mark.parametrize("name", NAMES)
def test_the_ablations_of_a_docstring_can_be_made(name: str, tmp_path: Path) -> None:
    searched = record(name, tmp_path)
    for arguments in commands(name):
        if arguments[0] != "ablate":
            continue
        params = _context(arguments).params
        vary = parse_vary(params["vary"], params["values"] or [])
        spec = ablation_spec(
            searched,
            vary=vary,
            around=searched.trial(params["around"]),
            name=params["name"],
            epochs=params["epochs"],
        )
        assert len(spec.first) > len(vary)


@pytest.mark.parametrize("name", NAMES)
def test_the_searches_of_a_docstring_fit_the_data(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StudySpec] = []

    def search(spec: StudySpec, **_: Any) -> None:
        asked.append(spec)
        raise typer.Exit

    monkeypatch.setattr("hpsearch.engine.search.search", search)
    monkeypatch.chdir(STUDIES.parent)
    given = [arguments for arguments in commands(name) if arguments[0] == "search"]
    for arguments in given:
        app(args=arguments, standalone_mode=False)
    assert len(asked) == len(given)
    spaces = {str((spec.families, spec.data_spec.size, spec.overrides)): spec for spec in asked}
    for spec in spaces.values():
        seen = ImageShape(*(spec.data_spec.size or (96, 96)), 3)
        check_overrides(spec.families, seen, spec.overrides)
        check_first(spec.families, seen, spec.overrides, spec.first)
