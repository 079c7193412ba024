"""`hpsearch predict` and `hpsearch evaluate` as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.cli.main import main

Run = Callable[[str], tuple[int, str, str]]
KINDS = ("=cat", "dog", "fish")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures that are easy to tell apart, and an export of a search on them."""
    place = tmp_path_factory.mktemp("place")
    random = np.random.default_rng(0)
    for number in range(60):
        pixels = random.integers(0, 60, (6, 8, 3), dtype=np.uint8)
        pixels[..., number % 3] += 150
        path = place / "pets" / KINDS[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    spec = "--family logistic --trials 1 --epochs 2 --device cpu --set lr=0.01"
    runs = place / "runs"
    for command in (
        f"search --data {place / 'pets'} {spec} --runs {runs}",
        f"export --runs {runs} -o {place / 'export'} --device cpu",
    ):
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command))
        assert not caught.value.code
    return place


@pytest.fixture
def predict(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `hpsearch predict export ...` in that folder."""
    monkeypatch.chdir(place)
    return lambda arguments: run(f"predict export --device cpu {arguments}")


def test_people_get_a_line_a_picture(predict: Run) -> None:
    code, out, err = predict("pets/dog/01.png pets/=cat 'pets/fish/0*.png'")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    paths = [line[-1] for line in lines]
    assert paths[0] == "pets/dog/01.png"
    assert paths[1:21] == [f"pets/=cat/{number:02}.png" for number in range(0, 60, 3)]
    assert paths[21:] == [f"pets/fish/{number:02}.png" for number in (2, 5, 8)]
    assert [line[0] for line in lines] == [path.split("/")[1] for path in paths]
    assert all(line[2] == "%" and 33 < float(line[1]) <= 100 for line in lines)


def test_machines_get_json_lines(predict: Run) -> None:
    code, out, err = predict("pets/dog --top 9 --json --batch-size 7")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 20
    for row in rows:
        assert row["image"].startswith("pets/dog/")
        assert (
            (row["label"], row["probability"])
            == tuple(row["top"][0].values())
            == (
                "dog",
                row["top"][0]["probability"],
            )
        )
        assert {entry["label"] for entry in row["top"]} == set(KINDS)
        assert sum(entry["probability"] for entry in row["top"]) == pytest.approx(1)


def test_spreadsheets_get_a_table_that_is_safe_to_open(predict: Run, place: Path) -> None:
    (place / "=1+1.png").write_bytes((place / "pets" / "=cat" / "00.png").read_bytes())
    code, out, err = predict("'=1+1.png' pets/dog/01.png --top 2 --csv")
    assert (code, err) == (0, "")
    head, first, second = csv.reader(io.StringIO(out))
    assert head == ["image", "predicted", "confidence", "predicted 2", "confidence 2", "error"]
    assert first[:2] == ["'=1+1.png", "'=cat"]
    assert second[:2] == ["pets/dog/01.png", "dog"]
    assert float(first[2]) > float(first[4]) > 0


def test_pictures_that_cannot_be_read_are_told_and_passed_over(predict: Run, place: Path) -> None:
    (place / "bad.png").write_bytes(b"nothing")
    code, out, err = predict("pets/dog/01.png bad.png none.png pets/fish/02.png")
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["dog", "fish"]
    assert err.splitlines() == [
        "cannot be read: none.png: there is no such file",
        "cannot be read: bad.png: is no picture that can be read",
    ]
    code, out, err = predict("bad.png")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "error: the picture cannot be read"
    reasons = {"none.png": "there is no such file", "bad.png": "is no picture that can be read"}
    code, out, _ = predict("pets/dog/01.png bad.png none.png --json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert {row["image"]: row["error"] for row in rows if "error" in row} == reasons
    code, out, _ = predict("pets/dog/01.png bad.png none.png --csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert {row["image"]: row["error"] for row in table if not row["predicted"]} == reasons
    assert [row["error"] for row in table if row["predicted"] == "dog"] == [""]


def test_pictures_of_kinds_that_are_not_read_are_named(predict: Run, place: Path) -> None:
    (place / "phone").mkdir()
    (place / "phone" / "a.HEIC").write_bytes(b"...")
    (place / "phone" / "notes.txt").write_text("...")
    (place / "phone" / "b.png").write_bytes((place / "pets" / "dog" / "01.png").read_bytes())
    code, out, err = predict("phone")
    assert (code, out.split()[0]) == (1, "dog")
    assert err == (
        "cannot be read: phone/a.HEIC: pictures of this kind are not read: convert it to JPEG or "
        "PNG\n"
    )
    code, out, err = predict("none.png '*.gif'")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "error: there is nothing to classify: no picture was found"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict nowhere x.png", "there is no export at nowhere"),
        ("predict export x.png --json --csv", "--json and --csv are both given"),
        ("predict export x.png --device tpu", "unknown device 'tpu'"),
        ("evaluate export --data nowhere", "nowhere"),
        ("evaluate export --data digits", "does not know the class 0"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(place)
    code, out, err = run(arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_names_come_from_standard_input(place: Path) -> None:
    """In a process of its own; names need not be text, nor print."""
    odd = os.fsencode(place) + b"/odd\xff\x1b.png"
    Path(os.fsdecode(odd)).write_bytes((place / "pets" / "dog" / "01.png").read_bytes())
    code = "import sys; from hpsearch.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "predict", "export", "-", "--device", "cpu"]
    result = subprocess.run(
        command, input=b"pets/fish/02.png\r\n\n" + odd + b"\n", capture_output=True, cwd=place
    )
    assert (result.returncode, result.stderr) == (0, b"")
    first, second = result.stdout.decode("utf-8").splitlines()
    assert first.startswith("fish")
    assert first.endswith("pets/fish/02.png")
    assert second.startswith("dog")
    assert second.endswith("odd\\udcff\\x1b.png")


def test_an_evaluation_is_printed_and_written(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    code, out, err = run("evaluate export --data pets --exclude fish -o scores --device cpu")
    assert code == 0
    lines = dict(line.split("  ", 1) for line in out.splitlines() if "  " in line.lstrip())
    lines = {name: text.strip() for name, text in lines.items()}
    assert lines["errors"] == "0 of 40"
    assert lines["95 % interval"].endswith("(Wilson)")
    assert lines["macro F1"] == "1.0000 (over the 2 classes that occur or are predicted)"
    assert lines["balanced accuracy"] == "100.00 % (over the 2 classes that occur)"
    assert lines["classes without images"] == "1 of 3: fish"
    assert (place / "scores" / "confusion_matrix.png").is_file()
    code, out, err = run("evaluate export --data pets --json --device cpu")
    assert code == 0
    document = json.loads(out)
    assert document["evaluation"]["images"] == 60
    assert document["of_the_search"] == {"train": 36, "val": 12, "test": 12}
    assert document["evaluation_of_new"]["images"] == 12
    assert err.splitlines() == [f"warning: {warning}" for warning in document["warnings"]]
    assert err.startswith("warning: of 60 images 36 were trained on and 12 the model was chosen")
    assert document["data"]["classes"] == list(KINDS)
    code, _, err = run("evaluate export --data pets -o scores")
    assert code == 2
    assert "--force" in err


def test_an_evaluation_counts_the_images_of_the_search(place: Path, run: Run) -> None:
    """Some of the search's pictures, some changed ones, and one that cannot be read."""
    random = np.random.default_rng(1)
    for kind in KINDS[1:]:
        (Path("mixed") / kind).mkdir(parents=True)
        for path in sorted((place / "pets" / kind).iterdir())[:10]:
            (Path("mixed") / kind / path.name).write_bytes(path.read_bytes())
        for number in range(5):
            pixels = random.integers(0, 60, (6, 8, 3), dtype=np.uint8)
            pixels[..., KINDS.index(kind)] += 150
            Image.fromarray(pixels).save(Path("mixed") / kind / f"new{number}.png")
    (Path("mixed") / "dog" / "bad.png").write_bytes(b"nothing")
    command = f"evaluate {place / 'export'} --data mixed --device cpu"
    code, out, err = run(command)
    assert (code, out) == (2, "")
    assert "--on-error skip" in err
    code, out, err = run(f"{command} --on-error skip --json")
    assert code == 0
    document = json.loads(out)
    assert sum(document["of_the_search"].values()) == 20
    assert document["data"]["skipped"] == 1
    assert "note: 1 image that cannot be read is left out: dog/bad.png" in err
    new = document["evaluation_of_new"]["images"]
    assert new == 10 + document["of_the_search"]["test"]
    code, out, _ = run(f"{command} --on-error skip")
    lines = [line.split("  ")[0].rstrip() for line in out.splitlines()]
    first = lines.index("accuracy of new images")
    assert f"of {new} images;" in out.splitlines()[first]
    assert lines[first + 1] == "accuracy of all"
    assert "accuracy" not in lines


def test_links_out_of_a_folder_are_left_out_and_told(place: Path, run: Run) -> None:
    Path("own").mkdir()
    pets = place / "pets"
    Path("own/a.png").write_bytes((pets / "dog" / "01.png").read_bytes())
    Path("own/inside.png").symlink_to("a.png")
    for number in range(4):
        Path(f"own/out{number}.png").symlink_to(pets / "fish" / "02.png")
    Path("own/notes.txt").symlink_to("/etc/hostname")  # would not be classified in any case
    Path("own/more").symlink_to(pets)
    code, out, err = run(f"predict {place / 'export'} own --device cpu")
    assert code == 1
    assert [line.split()[-1] for line in out.splitlines()] == ["own/a.png", "own/inside.png"]
    assert err.startswith(
        "left out: 5 links that lead out of the folder (own/more, own/out0.png, own/out1.png and 2 "
        "more)"
    )
    code, out, err = run(f"predict {place / 'export'} 'own/*.png' --device cpu")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 6
