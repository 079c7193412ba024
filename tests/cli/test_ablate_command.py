"""`hpsearch ablate`, as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpsearch import load_search
from hpsearch.cli.ablate import parse_vary
from hpsearch.cli.main import main
from hpsearch.engine.place import SPLIT
from hpsearch.errors import HpsearchError

Run = Callable[[str], tuple[int, str, str]]
SMALL = "--family mlp --trials 2 --epochs 2 --precision fp32 --workers 0"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished search, which the tests do not change."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(SystemExit) as caught:
        main([*shlex.split(f"search {SMALL} --runs"), str(folder)])
    assert caught.value.code == 0
    return folder


@pytest.fixture
def runs(searched: Path, tmp_path: Path) -> Path:
    shutil.copytree(searched, tmp_path / "runs")
    return tmp_path / "runs"


def test_from_a_search_to_the_figure(run: Run, runs: Path) -> None:
    command = "ablate digits --around mlp-0 --vary optimizer --values lr=1e-4,1e-2 --workers 0"
    code, out, err = run(command)
    assert (code, err) == (0, "")
    assert len(re.findall(r"^\[\d/4\] mlp-\d complete", out, flags=re.MULTILINE)) == 4
    record = load_search(runs, "digits-ablation")
    assert load_search(runs).name == "digits"  # an export of the best means that
    values = [f"{100 * (trial.value or 0):.2f} %" for trial in record.trials[:4]]
    differences = [
        f"{100 * ((trial.value or 0) - (record.trials[0].value or 0)):+.2f}"
        for trial in record.trials[1:4]
    ]
    after = out.partition("one parameter at a time")[2]
    assert varied(after) == [
        "optimizer trial val. acc. points",
        f"adamw (center) mlp-0 {values[0]} –",
        f"sgd mlp-1 {values[1]} {differences[0]}",
        "lr trial val. acc. points",
        f"0.0001 mlp-2 {values[2]} {differences[1]}",
        f"0.003 (center) mlp-0 {values[0]} –",
        f"0.01 mlp-3 {values[3]} {differences[2]}",
    ]
    assert "center: mlp-0 (optimizer adamw, lr 0.003)" in after
    assert "around mlp-0 of search digits" in " ".join(out.split())
    assert "360 validation images" in out
    assert "all with the same seed" in out
    figure = runs / "digits-ablation" / "ablation.png"
    assert f"figure: {figure.relative_to(Path.cwd())}" in out
    assert np.asarray(Image.open(figure)).std() > 0

    # All is done: the same again only draws.
    code, out, _ = run(f"{command} -o pictures/lr.png")
    assert code == 0
    assert not re.search(r"^\[\d/4\]", out, flags=re.MULTILINE)
    assert Path("pictures/lr.png").is_file()
    assert load_search(runs, "digits-ablation").finished == 4

    # A report has the same tables, and the page the figure.
    code, out, _ = run("report digits-ablation -o report.html")
    assert code == 0
    assert varied(out) == varied(after)
    assert re.search(r"mlp-1 +ablation", out)
    assert not re.search(r"mlp-\d+ +known-good", out)
    page = Path("report.html").read_text(encoding="utf-8")
    assert 'alt="for each parameter the learning curves and the outcomes of its values"' in page
    assert "Center: mlp-0 (optimizer adamw, lr 0.003)." in page
    assert "<td>0.003 (center)</td>" in page
    assert "The other parameters differ, too." not in page
    code, out, _ = run("report digits-ablation --json")
    (document,) = json.loads(out)["searches"]
    assert document["ablation"]["center"]["values"] == {"optimizer": "adamw", "lr": 0.003}
    assert [row["trial"] for row in document["ablation"]["parameters"]["lr"]] == [
        *("mlp-2", "mlp-0", "mlp-3")
    ]
    code, out, _ = run("report digits-ablation --csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["chosen_by"] for row in rows if row["state"] == "complete"} == {"ablation"}
    assert json.loads(run("report digits --json")[1])["searches"][0]["ablation"] is None


def varied(out: str) -> list[str]:
    """Heads and rows of an ablation's tables, without their last two columns."""
    _, _, tables = out.partition("center: ")
    rows = (line.split() for line in tables.splitlines() if re.search(r" (trial|mlp-\d) ", line))
    # The head of the last column is two words.
    return [" ".join(row[: -3 if row[-1] == "epoch" else -2]) for row in rows]


def test_the_best_is_varied_and_a_failure_is_told(run: Run, runs: Path) -> None:
    code, out, _ = run(
        "ablate digits --values freeze=nothing --epochs 1 --name other --workers 0 --seed 3"
    )
    assert code == 0
    record = load_search(runs, "other")
    assert [trial.state for trial in record.trials[:2]] == ["complete", "failed"]
    assert record.spec["epochs"] == 1
    assert {trial.config and trial.config.seed for trial in record.trials[:2]} == {3}
    assert f"around {load_search(runs, 'digits').best.name}" in " ".join(out.split())
    assert re.search(r"mlp-1 \(freeze nothing\) failed: .*'nothing'", out)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ("", ["--vary", "--values"]),
        ("--vary lr=3", ["'lr=3'", "--values"]),
        ("--vary lr,,optimizer", ["'lr,,optimizer'"]),
        ("--values lr", ["'lr'", "NAME=VALUE, such as lr=1e-4,1e-3"]),
        ("--values lr=a..b", ["--values lr: a range is two numbers"]),
        ("--values lr=1e-4..1e-2", ["1e-4..1e-2", "single values"]),
        ("--vary lr --values lr=1", ["lr", "twice"]),
        ("--vary speed", ["'speed'", "batch_size"]),
        ("--values lr=fast", ["'fast'"]),
        ("--vary lr --around mlp-77", ["'mlp-77'"]),
        ("--vary lr -o figure.pdf", ["figure.pdf", ".png"]),
        ("--vary lr -o folder.png", ["folder.png", "folder"]),
        ("--vary lr --name digits", ["'digits'", "--name digits-2"]),
        ("--vary lr --name a/b", ["'a/b'", "--name"]),
        ("--vary lr --epochs 0", ["epochs", "0"]),
        ("--vary lr --workers -1", ["--workers", "-1"]),
    ],
)
def test_bad_input_is_one_line(run: Run, runs: Path, options: str, parts: list[str]) -> None:
    Path("folder.png").mkdir()
    code, out, err = run(f"ablate digits {options}")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err
    assert sorted(path.name for path in runs.iterdir() if path.is_dir()) == sorted(
        {"digits", *(path.name for path in runs.glob(".*") if path.is_dir())}
    )


def test_another_split_is_refused_before_anything_is_made(run: Run, runs: Path) -> None:
    (runs / "digits" / SPLIT).write_bytes(b"")
    code, _, err = run("ablate digits --vary lr")
    assert code == 2
    assert SPLIT in err
    assert not (runs / "digits-ablation").exists()


def test_what_is_to_be_varied() -> None:
    vary = parse_vary("lr, optimizer", ["batch_size=16,32", "widths = 512/256,64", "ema=0.9"])
    assert vary == {
        "lr": None,
        "optimizer": None,
        "batch_size": (16, 32),
        "widths": ("512/256", 64),
        "ema": (0.9,),
    }
    assert list(vary) == ["lr", "optimizer", "batch_size", "widths", "ema"]


@pytest.mark.parametrize("given", [(None, []), ("", []), ("lr", ["=1"]), ("lr", ["x="])])
def test_texts_that_name_nothing(given: tuple[Any, Any]) -> None:
    with pytest.raises(HpsearchError):
        parse_vary(*given)
