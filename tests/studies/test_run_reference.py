"""Each reference study in its smallest form: from made data to the report, by its own commands."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import make_stand_in_weights
import pytest
import run_reference
import torch
from filelock import FileLock
from torchvision import models

from hpsearch import HpsearchError, load, load_search
from hpsearch.cli.main import main

HAND_CLASSES = {
    f"{gender} {side} {hand}"
    for gender in ("female", "male")
    for side in ("dorsal", "palmar")
    for hand in ("left", "right")
}
CLASSES = {  # how many, and some of them
    "hands": (8, HAND_CLASSES),
    "caltech101": (101, {"accordion", "airplanes", "yin_yang"}),
    "photos": (2, {"cat", "dog"}),
    "sign_language": (9, set("ABCDEFGHI")),
    "stl10": (10, {"airplane", "truck"}),
}


def execute(command: Sequence[str], folder: Path) -> int:
    """As `run_reference.run`, in this process: starting one takes as long as most steps."""
    program, *arguments = command
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        try:
            if program == "hpsearch":
                main(arguments)
            else:
                patch.setattr(sys, "argv", arguments)
                runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as done:
            return int(done.code or 0)
    return 0


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """Makes a stand-in by its command, once for all processes of this test run; gives its file."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "stand-ins"
    shared.mkdir(exist_ok=True)

    def make(command: Sequence[str]) -> Path:
        file = shared / make_stand_in_weights.stand_in_path(command[2], Path("weights"))
        with FileLock(shared / f"{command[2]}.lock"):
            if not file.is_file():
                assert execute(command, shared) == 0
        return file

    return make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps published weights, and whatever else has no folder of its own."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return folder


@pytest.mark.parametrize("name", run_reference.NAMES)
def test_a_study_runs_from_the_data_to_the_report(
    name: str,
    tmp_path: Path,
    home: Path,
    stand_in: Callable[[Sequence[str]], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"

    def step(command: Sequence[str], where: Path) -> int:
        if "make_stand_in_weights" in command[1]:
            file = stand_in(command)
            (where / "weights").mkdir(exist_ok=True)
            os.link(file, where / "weights" / file.name)
            return 0
        return execute(command, where)

    assert run_reference.follow(name, folder, smallest=True, execute=step) == 0
    printed = capsys.readouterr().out
    assert printed.count("no figure here says anything about the real data") == 2

    record = load_search(folder / "runs", name)
    form = run_reference.form_of(name, smallest=True)
    assert {trial.family for trial in record.ranked()} == set(record.families)
    assert record.finished == form.trials

    # Every family that has published weights has started from a stand-in, and says so.
    stood_in = {setting.partition(".")[0] for setting in form.stand_ins.values()}
    for trial in record.ranked():
        assert trial.config is not None
        weights = trial.config.weights
        assert (weights is not None) == (trial.family in stood_in)
        assert weights is None or re.search(r"/stand-in-\w+-glyphs\.pth$", weights.source)

    count, some = CLASSES[name]
    for exported in (folder / "exports" / name, folder / "exports" / f"{name}-retrained"):
        with (exported / "confusion_matrix.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        names = [cell.removeprefix("predicted ") for cell in header[1:]]
        assert len(names) == count
        assert some <= set(names)
        assert [row[0] for row in rows] == [f"true {label}" for label in names]
        assert (exported / "confusion_matrix.png").is_file()
        config = json.loads((exported / "config.json").read_text(encoding="utf-8"))["config"]
        started = "random weights"
        if config["weights"]:
            started = Path(config["weights"]["source"]).name.replace("_", r"\_")
            assert "stand-in" in started
        card = (exported / "README.md").read_text(encoding="utf-8")
        assert f"- started from: {started}" in card

    columns = {path.name for path in (folder / "exports" / name).glob("confusion_matrix-*.csv")}
    of_hands = {"confusion_matrix-gender.csv", "confusion_matrix-aspectOfHand.csv"}
    assert columns == (of_hands if name == "hands" else set())

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(family in page for family in record.families)

    assert not list(home.rglob("*"))  # torch's folder is there
    assert {path.name for path in tmp_path.iterdir()} == {"home", "run"}

    # A second time, what is there stays, and the test images are not opened again.
    assert len(load_search(folder / "runs", name).openings) == 2
    again: list[str] = []

    def note(command: Sequence[str], where: Path) -> int:
        again.append(command[1])
        return 0

    assert run_reference.follow(name, folder, smallest=True, execute=note) == 0
    assert again == ["data", "search", "report"]


def test_a_step_that_fails_ends_the_run_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[Sequence[str]] = []

    def fail(command: Sequence[str], folder: Path) -> int:
        commands.append(command)
        return 1 if command[1] == "data" else 0

    assert run_reference.follow("photos", tmp_path / "run", smallest=True, execute=fail) == 1
    assert [command[0] for command in commands] == ["python", "hpsearch"]
    assert "hpsearch data check ended with exit code 1" in capsys.readouterr().out


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    def forget(command: Sequence[str], folder: Path) -> int:
        return 0

    run_reference.follow("photos", tmp_path / "run", smallest=True, execute=forget)
    with pytest.raises(HpsearchError, match="holds something else"):
        run_reference.follow("hands", tmp_path / "run", smallest=True, execute=forget)
    with pytest.raises(HpsearchError, match="holds something else"):
        run_reference.follow("photos", tmp_path / "run", smallest=False, execute=forget)


def test_commands_run_in_the_folder_and_give_their_exit_code(tmp_path: Path) -> None:
    program = "import pathlib, sys; pathlib.Path('here').touch(); sys.exit(3)"
    assert run_reference.run(["python", "-c", program], tmp_path) == 3
    assert (tmp_path / "here").is_file()


@pytest.mark.parametrize("model", ["alexnet", "mobilenet_v2", "resnet18"])
def test_a_stand_in_is_the_trained_network_by_torchvisions_names(
    model: str, stand_in: Callable[[Sequence[str]], Path]
) -> None:
    script = str(run_reference.ROOT / "scripts" / "make_stand_in_weights.py")
    training = run_reference.form_of("hands", smallest=True).training
    file = stand_in(["python", script, model, "--out", "weights", *training])
    network = models.get_model(model, num_classes=2)
    network.load_state_dict(torch.load(file, weights_only=True))
    exported = file.parent / "exports" / file.stem
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load(exported).model.eval()(images)
        torch.testing.assert_close(network.eval()(images), expected, rtol=1e-3, atol=1e-3)
    assert "- started from: random weights" in (exported / "README.md").read_text(encoding="utf-8")
