from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hpsearch.data.catalog import Catalog
from hpsearch.data.sources import open_catalog
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import load_dataset
from hpsearch.errors import DataError
from hpsearch.names import printable

ROWS = [("1.png", "cat"), ("2.png", "dog"), ("3.png", "cat"), ("4.png", "dog"), ("5.png", "dog")]
CLASSES = dict(ROWS)


def pictures(root: Path, *names: str) -> Path:
    """Pictures of these names, each of its number's colour."""
    for number, name in enumerate(names or list(CLASSES)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 3), number).save(path, "PNG")
    return root


def table(root: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def catalog_of(source: Path, on_error: str = "fail", **options: object) -> Catalog:
    return open_catalog(DataSpec(source=str(source), on_error=on_error, options=options))  # type: ignore[arg-type]


def class_of(catalog: Catalog) -> dict[str, str]:
    """The class of each image by its name."""
    return {
        name: catalog.classes[label]
        for name, label in zip(catalog.names, catalog.labels.tolist(), strict=True)
    }


def remarks_of(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    return {remark.kind: remark.names for remark in catalog.remarks}


def refusal(source: Path, **options: object) -> str:
    """The message with which a source is refused: one printable line."""
    with pytest.raises(DataError) as caught:
        catalog_of(source, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


def lines(*rows: tuple[str, ...], delimiter: str = ",", end: str = "\n") -> str:
    return "".join(delimiter.join(row) + end for row in rows)


# ---- dialects


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_dialect_is_read(tmp_path: Path, encoding: str, delimiter: str, end: str) -> None:
    pictures(tmp_path)
    rows = [(name, label.replace("a", "à")) for name, label in ROWS]
    text = lines(("file", "label"), *rows, delimiter=delimiter, end=end)
    table(tmp_path, text.encode(encoding))
    catalog = catalog_of(tmp_path)
    assert class_of(catalog) == dict(rows)
    assert catalog.classes == ("càt", "dog")


def test_big_endian_utf_16_is_read(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, b"\xfe\xff" + lines(("file", "label"), *ROWS).encode("utf-16-be"))
    assert class_of(catalog_of(tmp_path)) == CLASSES


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.txt", "LABELS.CSV"])
def test_a_table_can_be_named_itself(tmp_path: Path, name: str) -> None:
    pictures(tmp_path)
    catalog = catalog_of(table(tmp_path, lines(("file", "label"), *ROWS), name))
    assert class_of(catalog) == CLASSES
    assert catalog.name.lower() == "labels"


def test_quotes_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [("1.png", 'a, "b"'), ("2.png", "c\r\nd"), ("3.png", 'a, "b"'), ("4.png", "c\r\nd")]
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("file", "label"), *rows])
    table(tmp_path, file.getvalue())
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ('a, "b"', "c\\r\\nd")
    assert catalog.labels.tolist() == [0, 1, 0, 1]


def test_the_delimiter_is_found_where_cells_hold_others(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, f"{label}, the animal|pet", "x;y") for name, label in ROWS]
    table(tmp_path, lines(("file", "label", "more"), *rows, delimiter="\t"))
    assert catalog_of(tmp_path).classes == ("cat, the animal|pet", "dog, the animal|pet")


def test_the_delimiter_is_found_in_a_large_file(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, label, "x" * 20_000) for name, label in ROWS]
    table(tmp_path, lines(("file", "label", "text"), *rows, delimiter=";"))
    assert class_of(catalog_of(tmp_path)) == CLASSES


def test_odd_line_separators_are_part_of_a_cell(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, f"{label}\u2028\x85\x0bx") for name, label in ROWS]
    table(tmp_path, lines(("file", "label"), *rows, delimiter=";"))
    assert catalog_of(tmp_path).classes == ("cat\\u2028\\x85\\x0bx", "dog\\u2028\\x85\\x0bx")


@pytest.mark.parametrize("delimiter", ["tab", "\\t", "\t"])
def test_a_tab_can_be_named(tmp_path: Path, delimiter: str) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS, delimiter="\t"))
    assert class_of(catalog_of(tmp_path, delimiter=delimiter)) == CLASSES


@pytest.mark.parametrize("delimiter", ["~", "é", "^", " "])
def test_any_delimiter_can_be_named(tmp_path: Path, delimiter: str) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS, delimiter=delimiter))
    assert class_of(catalog_of(tmp_path, delimiter=delimiter)) == CLASSES


@pytest.mark.parametrize("delimiter", [",,", "comma", '"', "\n", "\r", "\0"])
def test_a_delimiter_that_cannot_be_one_is_refused(tmp_path: Path, delimiter: str) -> None:
    pictures(tmp_path)
    path = table(tmp_path, lines(("file", "label"), *ROWS))
    assert str(path) in refusal(tmp_path, delimiter=delimiter)


def test_blank_lines_and_spaces_around_cells_do_not_matter(tmp_path: Path) -> None:
    pictures(tmp_path)
    text = "\n\n file , label \n\n" + "".join(f"  {a} ,\t{b} \n , \n" for a, b in ROWS) + "\n\n"
    table(tmp_path, text)
    assert class_of(catalog_of(tmp_path)) == CLASSES


def test_a_table_without_header_has_numbered_columns(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(*((label, name) for name, label in ROWS)))
    catalog = catalog_of(tmp_path)
    assert class_of(catalog) == CLASSES
    assert any("'2' names the images" in note for note in catalog.notes)
    assert any("'1' is the label" in note for note in catalog.notes)
    assert class_of(catalog_of(tmp_path, file="2", label="1")) == CLASSES


# ---- which image a cell means


@pytest.mark.parametrize(
    "form",
    ["{}", "{}.png", "./{}.png", "sub/{}.png", "./sub/{}", "sub\\{}.png", ".\\sub\\{}", "/{}.png"],
)
def test_an_image_is_found_by_path_name_or_stem(tmp_path: Path, form: str) -> None:
    pictures(tmp_path, *(f"deep/sub/{number}.png" for number in range(1, 5)))
    rows = [(form.format(number), "ab"[number % 2]) for number in range(1, 5)]
    table(tmp_path, lines(("file", "label"), *rows))
    assert class_of(catalog_of(tmp_path)) == {
        f"deep/sub/{number}.png": "ab"[number % 2] for number in range(1, 5)
    }


def test_a_name_with_points_is_found_without_its_suffix(tmp_path: Path) -> None:
    pictures(tmp_path, "a.b.1.png", "a.b.2.png", "c.png")
    rows = [("a.b.1", "x"), ("a.b.2", "y"), ("c", "y")]
    table(tmp_path, lines(("file", "label"), *rows))
    assert class_of(catalog_of(tmp_path)) == {"a.b.1.png": "x", "a.b.2.png": "y", "c.png": "y"}


def test_a_path_tells_images_of_one_name_apart(tmp_path: Path) -> None:
    pictures(tmp_path, "a/1.png", "b/1.png", "a/b/1.png", "1.png")
    rows = [("a/1.png", "w"), ("b/1.png", "x"), ("a/b/1.png", "y"), ("1.png", "z")]
    path = table(tmp_path, lines(("file", "label"), *rows))
    assert class_of(catalog_of(path, label="label")) == dict(rows)


def test_a_name_that_means_several_images_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "a/1.png", "b/1.png", "2.png")
    path = table(tmp_path, lines(("file", "label"), ("1.png", "x"), ("2.png", "y")))
    message = refusal(path)
    assert str(path) in message
    assert "a/1.png, b/1.png" in message


def test_a_folder_with_a_point_is_no_suffix(tmp_path: Path) -> None:
    # "dir/im" is dir/im.png, not dir/im.old/im.png.
    pictures(tmp_path, "dir/im.png", "dir/im.old/im.png", "other.png")
    table(tmp_path, lines(("file", "label"), ("dir/im", "x"), ("other", "y")))
    assert class_of(catalog_of(tmp_path)) == {"dir/im.png": "x", "other.png": "y"}


def test_a_row_without_image_may_mean_a_picture_that_is_not_read(tmp_path: Path) -> None:
    pictures(tmp_path, *CLASSES)
    (tmp_path / "phone.heic").write_bytes(b"\0")
    table(tmp_path, lines(("file", "label"), *ROWS, ("phone.heic", "dog")))
    told = "1 .heic picture is not read, convert it to JPEG or PNG: phone.heic"
    message = refusal(tmp_path)
    assert "rows names no image" in message
    assert told in message
    assert told in catalog_of(tmp_path, on_error="skip").notes


def test_rows_and_images_that_lack_the_other_are_said(tmp_path: Path) -> None:
    pictures(tmp_path, *CLASSES, "extra.png", "unlabelled.png")
    rows = [*ROWS, ("gone.png", "dog"), ("gone too.png", "cat"), ("unlabelled.png", " ")]
    table(tmp_path, lines(("file", "label"), *rows))
    message = refusal(tmp_path)
    assert f"2 of {len(rows)} rows" in message
    assert "gone.png, gone too.png" in message
    assert '--on-error skip (in Python: DataSpec(..., on_error="skip"))' in message
    catalog = catalog_of(tmp_path, on_error="skip")
    assert class_of(catalog) == CLASSES
    assert remarks_of(catalog) == {
        "rows without image": ("gone.png", "gone too.png"),
        "rows without label": ("unlabelled.png",),
        "images that no row names": ("extra.png",),
    }
    assert any("gone.png" in note for note in catalog.notes)
    assert any("extra.png" in note for note in catalog.notes)


def test_empty_cells_of_the_file_column_are_rows_without_image(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS, ("", "cat")))
    catalog = catalog_of(tmp_path, on_error="skip")
    assert class_of(catalog) == CLASSES
    assert remarks_of(catalog)["rows without image"] == ("",)


def test_no_label_at_all_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path)
    path = table(tmp_path, lines(("file", "label"), *((name, "") for name in CLASSES)))
    assert f"{path}: no row has both" in refusal(tmp_path, label="label")


def test_rows_that_say_the_same_twice_count_once(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS, ROWS[0], ("./2.png", "dog"), ROWS[0]))
    catalog = catalog_of(tmp_path)
    assert len(catalog) == len(ROWS)
    assert class_of(catalog) == CLASSES
    assert remarks_of(catalog)["images with two rows"] == ("1.png", "2.png")


def test_an_image_of_two_labels_is_refused_or_left_out(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS, ("1.png", "dog"), ("2.png", "dog")))
    message = refusal(tmp_path)
    assert "'1.png' is 'cat' and 'dog'" in message
    catalog = catalog_of(tmp_path, on_error="skip")
    assert class_of(catalog) == {name: label for name, label in ROWS if name != "1.png"}
    assert remarks_of(catalog)["images with two labels"] == ("1.png",)
    assert remarks_of(catalog)["images with two rows"] == ("2.png",)


def test_the_images_are_those_of_the_rows(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *reversed(ROWS)))
    data = load_dataset(str(tmp_path))
    assert list(data.names or ()) == [name for name, _ in reversed(ROWS)]
    assert data.images[:, 0, 0, 0].tolist() == [4, 3, 2, 1, 0]
    assert [data.classes[label] for label in data.labels] == [label for _, label in reversed(ROWS)]


def test_images_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "pictures")
    path = table(tmp_path / "tables", lines(("file", "label"), *ROWS))
    assert "no images" in refusal(path)
    assert class_of(catalog_of(path, images=str(tmp_path / "pictures"))) == CLASSES
    monkeypatch.chdir(tmp_path)
    assert class_of(catalog_of(Path("tables/labels.csv"), images="pictures")) == CLASSES
    assert "nowhere" in refusal(path, images="nowhere")
    assert "no folder of images" in refusal(path, images="x" * 5000)
    assert str(path) in refusal(path, images=str(path))


def test_a_folder_of_a_table_and_a_folder_of_images(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "images")
    table(tmp_path / "set", lines(("image", "class"), *ROWS))
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("cat", "dog")
    assert set(catalog.names) == {f"images/{name}" for name in CLASSES}


def test_which_of_several_tables_is_said_or_named(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS), "b.csv")
    table(tmp_path, lines(("file", "label"), *((name, f"not {x}") for name, x in ROWS)), "a.csv")
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("not cat", "not dog")
    assert any("a.csv" in note for note in catalog.notes)
    assert catalog_of(tmp_path, table="b.csv").classes == ("cat", "dog")
    assert "c.csv" in refusal(tmp_path, table="c.csv")


# ---- which column is what


HANDS = [
    ("id", "age", "gender", "aspectOfHand", "imageName"),
    ("1", "27", "male", "dorsal left", "1.png"),
    ("1", "27", "male", "dorsal right", "2.png"),
    ("2", "31", "female", "palmar left", "3.png"),
    ("2", "31", "female", "dorsal left", "4.png"),
    ("3", "20", "female", "dorsal left", "5.png"),
]


def test_several_columns_are_joined_to_the_label(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(*HANDS))
    catalog = catalog_of(tmp_path, label="gender,aspectOfHand", group="id")
    assert catalog.classes == (
        *("female dorsal left", "female palmar left", "male dorsal left", "male dorsal right"),
    )
    assert catalog.columns == ("gender", "aspectOfHand")
    assert catalog.class_parts == (
        *(("female", "dorsal left"), ("female", "palmar left")),
        *(("male", "dorsal left"), ("male", "dorsal right")),
    )
    assert list(catalog.groups or ()) == ["1", "1", "2", "2", "3"]
    assert class_of(catalog)["3.png"] == "female palmar left"
    data = load_dataset(
        DataSpec(source=str(tmp_path), options={"label": ("gender", "aspectOfHand")})
    )
    assert data.columns == catalog.columns
    assert data.class_parts == catalog.class_parts
    assert list(data.groups or ()) == ["1", "1", "2", "2", "3"]


def test_a_row_that_lacks_one_of_the_columns_has_no_label(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [list(row) for row in HANDS]
    rows[2][3] = ""
    table(tmp_path, lines(*(tuple(row) for row in rows)))
    catalog = catalog_of(tmp_path, label="gender,aspectOfHand")
    assert remarks_of(catalog)["rows without label"] == ("2.png",)
    assert all("" not in parts for parts in catalog.class_parts)


def test_columns_that_join_to_the_same_label_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "1.png", "2.png")
    rows = [("file", "x", "y"), ("1.png", "a b", "c"), ("2.png", "a", "b c")]
    path = table(tmp_path, lines(*rows))
    message = refusal(tmp_path, label="x,y")
    assert "'a b c'" in message
    assert str(path) in message


def test_columns_are_guessed_by_their_names(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{number}.png" for number in range(12)))
    rows = [
        (f"{n}.png", str(n * 7), "ab"[n % 2], f"person {n % 4}", ("train", "val", "Test")[n % 3])
        for n in range(12)
    ]
    table(tmp_path, lines(("path", "weight", "Class Name", "Subject-ID", "Split"), *rows))
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("a", "b")
    assert list(catalog.groups or ()) == [f"person {n % 4}" for n in range(12)]
    assert catalog.official is not None
    assert catalog.official.tolist() == [n % 3 for n in range(12)]
    for name in ("path", "Class Name", "Subject-ID", "Split"):
        assert any(repr(name) in note for note in catalog.notes)


def test_columns_can_be_named_against_the_guess(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{number}.png" for number in range(12)))
    rows = [(f"{n}.png", "ab"[n % 2], "xyz"[n % 3], f"g{n % 4}", f"h{n % 2}") for n in range(12)]
    table(tmp_path, lines(("file", "label", "mood", "person", "house"), *rows))
    assert catalog_of(tmp_path).classes == ("a", "b")
    catalog = catalog_of(tmp_path, label="mood", group="house")
    assert catalog.classes == ("x", "y", "z")
    assert list(catalog.groups or ()) == [f"h{n % 2}" for n in range(12)]
    assert not any("is the label" in note or "is the group" in note for note in catalog.notes)


def test_the_only_likely_column_is_the_label(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, str(number), label) for number, (name, label) in enumerate(ROWS)]
    table(tmp_path, lines(("picture", "number", "kind of pet"), *rows))
    catalog = catalog_of(tmp_path)
    assert class_of(catalog) == CLASSES
    assert any("'kind of pet' is the label" in note for note in catalog.notes)


def test_two_likely_columns_are_asked_about(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, label, label.upper()) for name, label in ROWS]
    table(tmp_path, lines(("file", "kind", "sort"), *rows))
    message = refusal(tmp_path)
    assert "which column is the label" in message
    assert "kind (2 values)" in message


def test_numbers_that_are_also_names_of_files_do_not_name_the_images(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(str(6 - number), name, label) for number, (name, label) in enumerate(ROWS, start=1)]
    table(tmp_path, lines(("row", "image", "label"), *rows))
    assert class_of(catalog_of(tmp_path)) == CLASSES
    assert set(class_of(catalog_of(tmp_path, file="row")).values()) == {"cat", "dog"}
    assert class_of(catalog_of(tmp_path, file="row")) != CLASSES


def test_a_column_without_images_is_asked_about(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), ("a.png", "x"), ("b.png", "y")))
    assert "no column names images" in refusal(tmp_path)
    assert "none of its 2 rows" in refusal(tmp_path, file="file")


@pytest.mark.parametrize("option", ["file", "label", "group", "split"])
def test_a_column_that_is_not_there_is_refused(tmp_path: Path, option: str) -> None:
    pictures(tmp_path)
    path = table(tmp_path, lines(("file", "label"), *ROWS))
    message = refusal(tmp_path, **{option: "colour"})
    assert f"{path}: there is no column 'colour'; it has file, label" in message


def test_every_image_needs_its_group(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, label, "" if name == "3.png" else "ann") for name, label in ROWS]
    table(tmp_path, lines(("file", "label", "who"), *rows))
    message = refusal(tmp_path, group="who")
    assert "'who'" in message
    assert "'3.png'" in message


def test_ids_that_do_not_repeat_are_no_groups(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(name, label, str(number)) for number, (name, label) in enumerate(ROWS)]
    table(tmp_path, lines(("file", "label", "id"), *rows))
    assert catalog_of(tmp_path).groups is None


def test_an_official_split_may_be_of_some_images(tmp_path: Path) -> None:
    pictures(tmp_path)
    parts = ["train", "", "TESTING", "valid", ""]
    rows = [(name, label, part) for (name, label), part in zip(ROWS, parts, strict=True)]
    table(tmp_path, lines(("file", "label", "set"), *rows))
    catalog = catalog_of(tmp_path)
    assert catalog.official is not None
    assert catalog.official.tolist() == [0, -1, 2, 1, -1]


def test_parts_that_are_not_known(tmp_path: Path) -> None:
    pictures(tmp_path)
    parts = ["train", "exam", "test", "test", "train"]
    rows = [(name, label, part) for (name, label), part in zip(ROWS, parts, strict=True)]
    table(tmp_path, lines(("file", "label", "phase"), *rows))
    assert catalog_of(tmp_path).official is None  # not guessed, but
    message = refusal(tmp_path, split="phase")
    assert "exam" in message
    assert "'phase'" in message


def test_what_belongs_to_images_of_classes_left_out_goes_with_them(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{number}.png" for number in range(12)))
    rows = [
        (f"{n}.png", "abc"[n % 3], "xy"[n % 2], f"p{n // 4}", ("train", "test")[n % 5 == 0])
        for n in range(12)
    ]
    table(tmp_path, lines(("file", "one", "two", "person", "split"), *rows))
    spec = DataSpec(source=str(tmp_path), options={"label": "one,two"}, exclude=("b x", "c y"))
    catalog = open_catalog(spec)
    kept = [row for row in rows if f"{row[1]} {row[2]}" not in spec.exclude]
    assert 0 < len(kept) < len(rows)
    assert list(catalog.names) == [row[0] for row in kept]
    assert list(catalog.groups or ()) == [row[3] for row in kept]
    assert catalog.official is not None
    assert catalog.official.tolist() == [{"train": 0, "test": 2}[row[4]] for row in kept]
    assert [catalog.class_parts[label] for label in catalog.labels] == [row[1:3] for row in kept]
    assert catalog.classes == ("a x", "a y", "b y", "c x")
    assert catalog.columns == ("one", "two")


# ---- bad and hostile tables


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\n\n \n,,\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"file,label\n", "no rows"),
        (b"file,label\n1.png,cat\n2.png\n", "line 3"),
        (b"file,label\n1.png,cat\n\n2.png,dog,x\n", "line 4"),
        (b"file,label,label\n1.png,cat,x\n2.png,dog,y\n", "repeat"),
        (b"file,label\n1.png," + b"x" * 200_000 + b"\n2.png,dog\n", "line 2"),
        (b"\xff\xfef\x00i\x00l", "no text"),
        (b"\xff\xfe\0\0f\0\0\0", ""),
        (bytes(range(256)) * 4, ""),
        (b"\0" * 100, ""),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), ""),
    ],
    ids=[
        *("empty", "blank", "BOM only", "header only", "short row", "long row", "repeated column"),
        *("huge field", "half UTF-16", "UTF-32", "bytes", "zeros", "a picture"),
    ],
)
def test_a_bad_table_is_refused_with_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    pictures(tmp_path)
    path = table(tmp_path, content)
    message = refusal(tmp_path)
    assert str(path) in message
    assert told in message


def test_nul_bytes_in_cells(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *((name, f"{label}\0") for name, label in ROWS)))
    assert catalog_of(tmp_path).classes == ("cat\\x00", "dog\\x00")
    path = table(tmp_path, lines(("file", "label"), *ROWS, ("6\0.png", "cat")))
    message = refusal(tmp_path)
    assert str(path) in message
    assert "no file name" in message


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "../secret.png",
            "../../secret.png",
            "/etc/secret.png",
            "..\\secret.png",
            "a/../../x.png",
        ),
        *("..", "/", "//etc//x.png", "./../secret.png", "../secret"),
    ],
)
def test_a_cell_that_leads_out_is_refused(tmp_path: Path, cell: str) -> None:
    root = pictures(tmp_path / "data")
    pictures(tmp_path, "secret.png")
    path = table(root, lines(("file", "label"), *ROWS, (cell, "cat")))
    message = refusal(root)
    assert str(path) in message
    assert repr(cell) in message
    assert "leads out" in message


def test_a_cell_whose_name_is_also_inside_does_not_mean_it(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    table(root, lines(("file", "label"), *ROWS[1:], ("../1.png", "cat")))
    assert "leads out" in refusal(root)


def test_a_cell_that_leads_back_inside_is_not_refused(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    table(root, lines(("file", "label"), *ROWS, ("../data/9.png", "cat")))
    assert remarks_of(catalog_of(root, on_error="skip"))["rows without image"] == ("../data/9.png",)


def test_a_link_below_the_images_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    pictures(tmp_path, "secret.png")
    (root / "6.png").symlink_to("../secret.png")
    table(root, lines(("file", "label"), *ROWS, ("6.png", "cat")))
    message = refusal(root)
    assert "'6.png'" in message
    assert "leads out" in message


@pytest.mark.parametrize("name", ["../labels.csv", "/etc/passwd", "link.csv"])
def test_a_table_that_lies_outside_is_refused(tmp_path: Path, name: str) -> None:
    root = pictures(tmp_path / "data")
    table(tmp_path, lines(("file", "label"), *ROWS))
    (root / "link.csv").symlink_to("../labels.csv")
    message = refusal(root, table=name)
    assert "leads out" in message


@pytest.mark.parametrize("name", ["a\0.csv", "x" * 5000, "."])
def test_a_table_of_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS))
    assert "no table at" in refusal(tmp_path, table=name)


def test_very_long_cells_are_no_images(tmp_path: Path) -> None:
    pictures(tmp_path)
    table(tmp_path, lines(("file", "label"), *ROWS, ("x" * 5000, "cat"), ("y/" * 5000, "dog")))
    assert len(remarks_of(catalog_of(tmp_path, on_error="skip"))["rows without image"]) == 2


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_no_table(tmp_path: Path, kind: str) -> None:
    pictures(tmp_path)
    path = tmp_path / "labels.csv"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    assert str(path) in refusal(path)


def test_hostile_names_in_a_table_are_kept_safe(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{number}.png" for number in range(6)))
    evil = "\x1b[31m<b>\u202e\r\n=cmd|' /C calc'!A0"
    path = table(tmp_path, b"", "a\x1b[2J\n.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", f"label{evil}", f"side{evil}", f"person{evil}"])
        for number in range(6):
            writer.writerow([f"{number}.png", evil + "ab"[number % 2], evil, f"{evil}{number % 2}"])
    header = f"label{evil}", f"side{evil}", f"person{evil}"
    catalog = catalog_of(tmp_path, label=header[:2], group=header[2])
    texts = [catalog.name, *catalog.classes, *catalog.columns, *catalog.notes]
    texts += [*(catalog.groups or ()), *(value for parts in catalog.class_parts for value in parts)]
    assert len(catalog.classes) == 2
    assert all(text.isprintable() for text in texts)
    assert "there is no column" in refusal(tmp_path, label="x")
    assert "which column" in refusal(tmp_path)


# ---- what is written is read

CELL = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(CELL, CELL), min_size=2, max_size=8).filter(
        lambda rows: len({printable(label.strip()) for label, _ in rows}) > 1
    ),
    st.sampled_from([",", ";", "\t", "|", "~"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@example([("a\u2028b", "x"), ("c", "y")], ";", "\n", "utf-8", csv.QUOTE_MINIMAL)
@example([("\0", "x"), ("c", "y")], ";", "\n", "utf-8", csv.QUOTE_MINIMAL)
def test_what_is_written_is_read(
    rows: list[tuple[str, str]], delimiter: str, end: str, encoding: str, quoting: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(len(rows)):
            (root / f"{number}.png").touch()
        file = io.StringIO(newline="")
        if any({"\r", "\n"} & set(cell) for row in rows for cell in row):
            quoting = csv.QUOTE_ALL  # Python's writer quotes only the line ends that it uses
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
        writer.writerow(["what", "which", "who"])
        writer.writerows([label, f"{n}.png", who] for n, (label, who) in enumerate(rows))
        path = table(root, file.getvalue().encode(encoding))
        catalog = catalog_of(path, file="which", label="what", group="who", delimiter=delimiter)
        read = [catalog.classes[label] for label in catalog.labels]
        assert read == [printable(label.strip()) for label, _ in rows]
        assert list(catalog.groups or ()) == [printable(who.strip()) for _, who in rows]
        assert list(catalog.names) == [f"{number}.png" for number in range(len(rows))]


WORD = st.text(alphabet="abc dé\"'\n", min_size=1, max_size=6).filter(lambda text: text.strip())


@settings(max_examples=150)
@given(
    st.lists(st.tuples(WORD, WORD), min_size=3, max_size=30).filter(
        lambda rows: len({label.strip() for label, _ in rows}) > 1
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_the_delimiter_is_found(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(len(rows)):
            (root / f"{number}.png").touch()
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerow(["which", "what", "who"])
        writer.writerows([f"{n}.png", *row] for n, row in enumerate(rows))
        catalog = catalog_of(table(root, file.getvalue()), label="what")
        read = [catalog.classes[label] for label in catalog.labels]
        assert read == [printable(label.strip()) for label, _ in rows]


@settings(max_examples=150)
@given(st.binary(max_size=60) | st.text(alphabet='fl1.pngab,;|\t"\n\r\\/ ', max_size=60))
def test_any_table_is_read_or_refused(content: bytes | str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = pictures(Path(folder), "1.png", "2.png")
        path = table(root, content)
        try:
            catalog = catalog_of(path)
        except DataError as error:
            message = str(error)
            assert message.isprintable()
            assert str(path) in message
            return
        assert set(catalog.names) <= {"1.png", "2.png"}


def test_the_first_row_of_a_table_without_header_is_told_where_its_image_is_missing(
    tmp_path: Path,
) -> None:
    pictures(tmp_path)
    (tmp_path / "1.png").unlink()
    table(tmp_path, lines(*ROWS))
    assert "1 of 5 rows names no image" in refusal(tmp_path)
    catalog = catalog_of(tmp_path, on_error="skip")
    assert class_of(catalog) == dict(ROWS[1:])
    assert remarks_of(catalog)["rows without image"] == ("1.png",)


def test_a_header_may_be_called_like_a_picture(tmp_path: Path) -> None:
    pictures(tmp_path, *CLASSES, "image.png")
    table(tmp_path, lines(("image", "label"), *ROWS))
    assert class_of(catalog_of(tmp_path)) == CLASSES


def test_a_guessed_group_has_no_blanks(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [(*row, "" if number == 0 else "ann") for number, row in enumerate(ROWS)]
    table(tmp_path, lines(("file", "label", "person"), *rows))
    assert catalog_of(tmp_path, label="label").groups is None


def test_a_stray_link_beside_the_images_harms_nobody(tmp_path: Path) -> None:
    root = pictures(tmp_path / "data")
    pictures(tmp_path, "elsewhere.png")
    (root / "stray.png").symlink_to("../elsewhere.png")
    table(root, lines(("file", "label"), *ROWS))
    assert class_of(catalog_of(root)) == CLASSES
