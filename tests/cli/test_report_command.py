"""`hpsearch report`: one search and several, as tables, JSON, CSV and a page."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.cli.main import main

Run = Callable[[str], tuple[int, str, str]]

SMALL = "--family logistic --epochs 1 --workers 0 --device cpu"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished searches."""
    folder = tmp_path_factory.mktemp("runs")
    for name, trials in (("first", 2), ("second", 1)):
        with pytest.raises(SystemExit):
            main(shlex.split(f"search {SMALL} --trials {trials} --name {name} --runs {folder}"))
    return folder


def test_without_a_name_it_is_the_search_started_last(run: Run, runs: Path) -> None:
    code, out, _ = run(f"report --runs {runs}")
    assert code == 0
    assert "search second: families" in out
    assert "leaderboard" not in out


def test_several_are_ranked_and_one_named_twice_is_there_once(run: Run, runs: Path) -> None:
    code, out, _ = run(f"report first second first --runs {runs}")
    assert code == 0
    assert out.count("search first: families") == 1
    assert out.index("leaderboard") < out.index("search first") < out.index("search second")
    code, out, _ = run(f"report first second first --runs {runs} --json --best 1")
    document = json.loads(out)
    assert [search["search"] for search in document["searches"]] == ["first", "second"]
    assert {row["search"] for row in document["leaderboard"]} == {"first", "second"}
    row = document["leaderboard"][0]
    assert row["macs"] == 8 * 8 * 10
    assert row["parameters"] == 650
    assert all(len(search["best_trials"]) == 1 for search in document["searches"])


def test_all_trials_are_a_table(run: Run, runs: Path) -> None:
    code, out, _ = run(f"report first second --runs {runs} --csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["search"], row["trial"]) for row in rows] == [
        ("first", "logistic-0"),
        ("first", "logistic-1"),
        ("second", "logistic-0"),
    ]
    assert all(float(row["params_lr"]) > 0 for row in rows)


def test_a_page_is_written_beside_what_is_printed(run: Run, runs: Path, tmp_path: Path) -> None:
    code, out, _ = run(f"report second --runs {runs} -o pages/report.html")
    assert code == 0
    assert "search second: families" in out
    assert out.splitlines()[-1].split() == ["report", "pages/report.html"]
    assert "Report of second" in (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    code, out, _ = run(f"report second --runs {runs} -o pages/report.html --json")
    assert json.loads(out)["searches"][0]["search"] == "second"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ("first nothing", ["'nothing'", "first", "second"]),
        ("--json --csv", ["--json", "--csv"]),
        ("-o folder.html", ["folder.html", "is a folder"]),
        ("-o report", ["'report'", "report.html"]),
        ("-o file/report.html", ["file/report.html", "cannot be written"]),
        ("--best -1", ["--best"]),
    ],
)
def test_what_is_wrong_is_said(
    run: Run, runs: Path, tmp_path: Path, options: str, parts: list[str]
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    code, out, err = run(f"report {options} --runs {runs}")
    assert code == 2
    assert out == ""
    assert all(part in err for part in parts), err
    assert "Traceback" not in err
