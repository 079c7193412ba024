"""`hpsearch data` and the data options of `search`, on files that the tests make."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hpsearch.data.augment import AUGMENTATIONS
from hpsearch.data.sources import SOURCES

Run = Callable[[str], tuple[int, str, str]]


def picture(path: Path, seed: int, redness: int = 0) -> None:
    """A picture of 12x16 pixels that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 100, (12, 16, 3), dtype=np.uint8)
    pixels[..., 0] += np.uint8(redness)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 pictures of each of two classes, in folders: the second class is redder."""
    for number in range(80):
        label = number % 2
        picture(
            tmp_path / "photos" / ("plain", "red")[label] / f"{number}.png", number, 120 * label
        )
    return tmp_path / "photos"


@pytest.fixture
def hands(tmp_path: Path) -> Path:
    """A table of 60 pictures of 12 people, as the hands project has it."""
    rows = []
    for number in range(60):
        person = number // 5
        row = {
            "id": person,
            "gender": ("male", "female")[person % 2],
            "aspectOfHand": ("dorsal left", "palmar right")[number % 2],
            "imageName": f"Hand_{number:07}.jpg",
        }
        picture(tmp_path / "hands" / "Hands" / row["imageName"], number)
        rows.append(row)
    with (tmp_path / "hands" / "HandInfo.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "hands"


def test_list_shows_every_source_and_its_options(run: Run) -> None:
    code, out, err = run("data list")
    assert (code, err) == (0, "")
    for source in SOURCES:
        assert source.usage in out
        for option in source.options:
            assert f"{option.name}: " in out
    where = next(line for line in out.splitlines() if " download: " in line)
    assert re.match(r" *[A-Za-z0-9]+ to [A-Za-z0-9]+ ", where), where  # not of files and folders
    listed = json.loads(run("data list --json")[1])
    assert [row["usage"] for row in listed] == [row.usage for row in SOURCES]


def test_inspect_counts_classes_by_split(run: Run, photos: Path) -> None:
    code, out, err = run("data inspect photos --split 50/25/25")
    assert (code, err) == (0, "")
    assert "12x16x3" in out
    assert "note: the pictures keep their size of 12x16 pixels" in out
    told = json.loads(run("data inspect photos --split 50/25/25 --json")[1])
    assert told["classes"]["red"] == {"train": 20, "val": 10, "test": 10}
    assert told["images"] == {"train": 40, "val": 20, "test": 20}
    assert told["original_sizes"] == [{"height": 12, "width": 16, "images": 80}]
    assert told["train_mean"][0] == pytest.approx((49.5 + 60) / 255, abs=0.02)


def test_inspect_joins_the_columns_of_a_table_and_keeps_people_apart(run: Run, hands: Path) -> None:
    code, out, _ = run("data inspect hands --with label=gender,aspectOfHand --json")
    assert code == 0
    told = json.loads(out)
    assert list(told["classes"]) == [
        "female dorsal left", "female palmar right", "male dorsal left", "male palmar right",
    ]  # fmt: skip
    assert told["groups"] == 12
    assert any("'id' is the group" in note for note in told["notes"])
    assert any("no group is on two sides" in note for note in told["notes"])
    lifted = json.loads(
        run("data inspect hands --with label=gender,aspectOfHand --ignore-groups --json")[1]
    )
    assert lifted["images"] == {"train": 36, "val": 12, "test": 12}


def test_preview_draws_a_picture_and_never_a_test_image_unasked(run: Run, photos: Path) -> None:
    code, out, err = run("data preview photos -n 1000 -o all.png")
    assert (code, err) == (0, "")
    assert out.startswith("64 images of 2 classes")  # the 16 test images are not among them
    assert Image.open("all.png").format == "PNG"
    code, out, _ = run("data preview photos -n 1000 --show-test -o all.png --force")
    assert code == 0
    assert out.startswith("80 images")


def test_preview_shows_augmentations(run: Run, photos: Path) -> None:
    assert run("data preview photos -n 2 -o plain.png")[0] == 0
    assert run("data preview photos -n 2 --augment all -o all.png")[0] == 0
    assert Image.open("all.png").height > 2 * Image.open("plain.png").height
    code, _, err = run("data preview photos --augment swirl=3 -o swirl.png")
    assert code == 2
    assert all(row.name in err for row in AUGMENTATIONS)
    assert not Path("swirl.png").exists()


def test_check_finds_nothing_in_good_data(run: Run, photos: Path) -> None:
    code, out, err = run("data check photos")
    assert (code, err) == (0, "")
    assert "80 images of 2 classes: 0 errors" in out


def test_check_and_inspect_say_which_pictures_are_not_read_and_how_much_is_cut(
    run: Run, photos: Path
) -> None:
    (photos / "red" / "IMG_1.heic").write_bytes(b"\0")
    (photos / "red" / "Thumbs.db").write_bytes(b"\0")
    not_read = "1 .heic picture is not read, convert it to JPEG or PNG: red/IMG_1.heic"
    cut = "the pictures are cut to the middle square: a typical one loses 25%"
    code, out, _ = run("data check photos --size 8")
    assert code == 0
    # Not in a terminal: a line each, with nothing around it.
    lines = out.splitlines()
    assert lines[0] == f"warning: {not_read}"
    assert "note: 1 file that is no picture: red/Thumbs.db" in lines
    assert any(line.startswith(f"note: {cut}") for line in lines)
    assert sum("0.5 or less is chance: " in line for line in lines) == out.count("AUC")
    assert "0 errors, 1 warning, " in lines[-1]
    _, out, _ = run("data inspect photos --size 8")
    assert f"note: {not_read}" in out
    assert f"note: {cut}" in out
    for fitting in ("--fit pad", "--size 9x12"):
        assert "typical" not in run(f"data check photos --size 8 {fitting}")[1]
        assert "typical" not in run(f"data inspect photos --size 8 {fitting}")[1]


def test_check_exits_with_1_where_results_would_be_wrong(run: Run, photos: Path) -> None:
    plain = photos / "plain" / "0.png"
    (photos / "red" / "copy.png").write_bytes(plain.read_bytes())  # a conflicting label
    (photos / "red" / "cut.png").write_bytes(plain.read_bytes()[:60])
    code, out, err = run("data check photos --sheet sheet.html --json")
    assert (code, err) == (1, "")
    report = json.loads(out)
    errors = " ".join(f["message"] for f in report["findings"] if f["severity"] == "error")
    assert "copy.png" in errors
    assert "cut.png" in errors
    page = Path("sheet.html").read_text(encoding="utf-8")
    assert "copy.png" in page
    assert "data:image/png;base64," in page
    code, out, _ = run("data check photos")
    assert code == 1
    assert "0 errors" not in out
    assert "error" in out


def test_check_finds_a_copy_with_other_proportions_although_training_crops(
    run: Run, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((180, 120), Image.Resampling.BICUBIC)
        path = tmp_path / "views" / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        if number == 6:
            picture.resize((100, 130)).save(path.with_name("squeezed.jpg"), quality=70)
    _, out, _ = run("data check views --json")
    near = [f for f in json.loads(out)["findings"] if f["kind"].startswith("near")]
    assert any("squeezed.jpg" in finding["message"] for finding in near)
    assert sum(finding["count"] for finding in near) <= 2


def test_check_measures_the_shift_to_other_images(run: Run, photos: Path, tmp_path: Path) -> None:
    for number in range(60):
        picture(tmp_path / "same" / f"{number}.png", 1000 + number, 120 * (number % 2))
        pixels = np.random.default_rng(number).integers(100, 256, (12, 16, 3), dtype=np.uint8)
        (tmp_path / "bright").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "bright" / f"{number}.png")
    same, bright = (
        json.loads(run(f"data check photos --against {folder} --json")[1])["shifts"][-1]["auc"]
        for folder in ("same", "bright")
    )
    assert same < 0.7
    assert bright > 0.95


def test_convert_writes_a_file_that_every_command_takes(run: Run, hands: Path) -> None:
    code, out, err = run("data convert hands h.h5 --with label=gender,aspectOfHand --size 8x10")
    assert (code, err) == (0, "")
    assert "60 images of 8x10x3 and 4 classes" in out
    with h5py.File("h.h5") as file:
        assert file["images"].shape == (60, 8, 10, 3)
    direct = json.loads(
        run("data inspect hands --with label=gender,aspectOfHand --size 8x10 --json")[1]
    )
    told = json.loads(run("data inspect h.h5 --json")[1])
    for key in ("fingerprint", "classes", "train_mean", "groups"):
        assert told[key] == direct[key]
    code, _, err = run("data convert hands h.h5 --with label=gender --size 8")
    assert code == 2
    assert "h.h5" in err
    assert run("data convert hands h.h5 --with label=gender --size 8 --force")[0] == 0


def test_convert_lists_all_bad_images_and_leaves_nothing(run: Run, photos: Path) -> None:
    for name in ("a.png", "b.jpg", "c.gif"):
        (photos / "red" / name).write_bytes(b"no picture")
    before = sorted(Path().rglob("*"))
    code, out, err = run("data convert photos p.h5")
    assert (code, out) == (2, "")
    assert all(f"red/{name}" in err for name in ("a.png", "b.jpg", "c.gif"))
    assert sorted(Path().rglob("*")) == before
    code, out, _ = run("data convert photos p.h5 --on-error skip")
    assert code == 0
    assert out.count("left out: red/") == 3
    assert "80 images" in out


def test_a_search_and_its_export_take_a_folder(run: Run, photos: Path) -> None:
    command = "search --data photos --size 8 --gray --exclude nothing --family logistic --trials 1"
    code, _, err = run(command)
    assert code == 2
    assert "'nothing'" in err
    assert "plain, red" in err
    command = (
        "search --data photos --size 8 --family logistic --trials 1 --epochs 40 --split 50/25/25"
    )
    code, out, err = run(command)
    assert (code, err) == (0, "")
    assert "photos: 8x8x3, 2 classes, 40 train + 20 validation images (20 test" in out
    assert run("export photos")[0] == 0
    metrics = json.loads(Path("exports/photos/metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["images"] == 20
    assert metrics["test"]["accuracy"] > 0.9


def test_a_search_says_what_was_guessed_and_warns_of_what_is_wrong(run: Run, hands: Path) -> None:
    search = (
        "search --data hands --with label=gender --size 8 --family logistic --trials 1 --epochs 1"
    )
    code, out, _ = run(search)
    assert code == 0
    assert "note: column 'imageName' names the images" in out
    assert "warning" not in out
    table = hands / "HandInfo.csv"
    (hands / "Hands" / "again.jpg").write_bytes((hands / "Hands" / "Hand_0000000.jpg").read_bytes())
    with table.open("a", encoding="utf-8", newline="") as file:
        file.write("11;female;dorsal left;again.jpg\r\n")
    code, out, _ = run(f"{search} --name second")
    assert code == 0
    assert "warning: " in out
    assert "again.jpg" in out
    code, out, _ = run(f"{search} --name third --dry-run")
    assert "again.jpg" in out


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("data inspect nowhere", ["'nowhere'", "no such file or folder", "data list"]),
        ("data inspect digit", ["did you mean 'digits'?"]),
        ("data inspect photos --with label=a", ["photos", "label"]),
        ("data inspect photos --with label", ["NAME=VALUE", "'label'"]),
        ("data inspect digits --with label=a --with label=b", ["twice"]),
        ("data inspect digits --with speed=9", ["'speed'", "digits"]),
        ("data inspect photos --size 0", ["0", "1 to"]),
        ("data inspect photos --size big", ["'big'", "480x640"]),
        ("data inspect photos --fit squeeze", ["'squeeze'", "crop"]),
        ("data inspect photos --on-error panic", ["'panic'", "skip"]),
        ("data inspect photos --split 60/20", ["'60/20'", "60/20/20"]),
        ("data inspect photos --split 60/20/30", ["'60/20/30'"]),
        ("data inspect photos --split a/b/c", ["'a/b/c'"]),
        ("data preview photos -o nowhere/a.png", ["nowhere"]),
        ("data preview photos -o a.jpg", ["a.jpg", ".png"]),
        ("data preview photos --augment rotate=far -o a.png", ["rotate", "'far'"]),
        ("data preview photos --augment rotate=999 -o a.png", ["rotate", "999"]),
        ("data check photos --sheet a.txt", ["a.txt", ".html"]),
        ("data check photos --against nowhere", ["nowhere"]),
        ("data convert photos photos/a.txt", ["a.txt", ".h5"]),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Run, photos: Path, command: str, parts: list[str]
) -> None:
    before = sorted(Path().rglob("*"))
    code, out, err = run(command)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert sorted(Path().rglob("*")) == before


def test_a_sheet_seals_official_test_images_even_where_the_split_is_refused(
    run: Run, tmp_path: Path
) -> None:
    for number in range(12):
        picture(tmp_path / "odd" / "train" / "ab"[number % 2] / f"{number}.png", number)
        picture(tmp_path / "odd" / "test" / "abc"[number % 3] / f"{number}.png", 100 + number)
    copied = (tmp_path / "odd" / "test" / "a" / "0.png").read_bytes()
    (tmp_path / "odd" / "test" / "b" / "copy.png").write_bytes(copied)
    code, _, _ = run("data check odd --sheet odd.html")
    assert code == 1
    page = Path("odd.html").read_text(encoding="utf-8")
    assert "copy.png" in page
    assert "<img" not in page
    assert run("data check odd --sheet odd.html --force --show-test")[0] == 1
    assert "<img" in Path("odd.html").read_text(encoding="utf-8")


def test_what_was_wrong_with_the_files_is_not_told_when_it_is_mended(
    run: Run, photos: Path
) -> None:
    (photos / "red" / "cut.png").write_bytes(b"no picture")
    assert run("data check photos")[0] == 1
    (photos / "red" / "cut.png").unlink()
    search = "search --data photos --size 8 --family logistic --trials 1 --epochs 1"
    code, out, _ = run(search)
    assert code == 0
    assert "cannot be read" not in out
