"""`hpsearch compare` as a user meets it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

Run = Callable[[str], tuple[int, str, str]]


def exported(folder: Path, guesses: str) -> None:
    """Predictions of images that are all of class a."""
    folder.mkdir()
    lines = ["image,true,predicted,confidence,p a,p b"]
    lines += [f"{number}.png,a,{guess},0.75,0.5,0.5" for number, guess in enumerate(guesses)]
    text = "\r\n".join([*lines, ""])
    (folder / "predictions.csv").write_text(text, encoding="utf-8", newline="")


def test_two_exports_are_compared(run: Run, tmp_path: Path) -> None:
    exported(tmp_path / "one", "a" * 30 + "b" * 10)
    exported(tmp_path / "two", "a" * 39 + "b")
    code, out, err = run("compare one two")
    assert (code, err) == (0, "")
    for text in ("75.00 %", "97.50 %", "+22.50 percentage points", "p = 0.0039", "40 test images"):
        assert text in out
    assert "The second is better by more than chance explains" in out

    code, out, _ = run("compare two one --json")
    document = json.loads(out)
    assert code == 0
    assert (document["first"], document["only_first_right"]) == ("two", 9)
    assert document["difference"] < document["difference_95"][1] < 0


def test_people_are_not_counted_as_if_their_images_were_apart(run: Run, tmp_path: Path) -> None:
    """The second knows nine images more, all of one of four people."""
    exported(tmp_path / "one", "a" * 30 + "b" * 10)
    exported(tmp_path / "two", "a" * 39 + "b")
    for folder in ("one", "two"):
        path = tmp_path / folder / "predictions.csv"
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        with path.open("w", encoding="utf-8", newline="") as file:
            groups = (f"person {number // 10}" for number in range(len(rows)))
            both = ([name, group, *row] for (name, *row), group in zip(rows, groups, strict=True))
            csv.writer(file).writerows([[head[0], "group", *head[1:]], *both])
    code, out, err = run("compare one two")
    assert (code, err) == (0, "")
    assert "40 test images of 4 groups" in out
    assert "exact sign-flip test over groups: p = 1\n" in out
    assert "McNemar" not in out
    assert "cannot be told" in out


def test_what_cannot_be_compared_is_one_line(run: Run, tmp_path: Path) -> None:
    exported(tmp_path / "one", "ab")
    exported(tmp_path / "two", "aba")
    for command in ("compare one two", "compare one missing"):
        code, out, err = run(command)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
