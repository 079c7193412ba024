from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from hpsearch.data.catalog import Catalog
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.listing import list_files
from hpsearch.data.readers import FileReader
from hpsearch.data.sources import open_catalog
from hpsearch.data.sources.folders import compile_pattern
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import UnreadableImagesError, load_dataset
from hpsearch.errors import DataError


def picture(path: Path, value: int = 0) -> None:
    """A picture of 3x2 pixels, all of `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 3), (value, value, value)).save(path)


def tree(root: Path, *paths: str) -> Path:
    """Pictures at these paths, each of its number's colour."""
    for number, path in enumerate(paths):
        picture(root / path, number)
    return root


def catalog_of(root: Path, **fields: object) -> Catalog:
    return open_catalog(DataSpec(source=str(root), **fields))  # type: ignore[arg-type]


def load(root: Path, **fields: object) -> ImageDataset:
    return load_dataset(DataSpec(source=str(root), **fields))  # type: ignore[arg-type]


def class_of(catalog: Catalog | ImageDataset) -> dict[str, str]:
    """The class of each image by its name."""
    assert catalog.names is not None
    return {
        name: catalog.classes[label]
        for name, label in zip(catalog.names, catalog.labels.tolist(), strict=True)
    }


def remarks_of(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    return {remark.kind: remark.names for remark in catalog.remarks}


def refusal(root: Path | str, **fields: object) -> str:
    """The message with which a source is refused: one printable line that names it."""
    with pytest.raises(DataError) as caught:
        load_dataset(DataSpec(source=str(root), **fields))  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable()
    return message


# ---- class folders


def test_each_folder_is_a_class(tmp_path: Path) -> None:
    data = load(tree(tmp_path / "pets", "cat/b.png", "cat/a.png", "dog/c.png", "ant/d.png"))
    assert data.name == "pets"
    assert data.classes == ("ant", "cat", "dog")
    assert class_of(data) == {
        "ant/d.png": "ant",
        "cat/a.png": "cat",
        "cat/b.png": "cat",
        "dog/c.png": "dog",
    }
    assert data.images[:, 0, 0, 0].tolist() == [3, 1, 0, 2]
    assert data.official is None
    assert data.groups is None


def test_folders_below_class_folders_belong_to_the_class(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "cat/small/2.png", "cat/small/very/3.png", "dog/old/4.png")
    assert class_of(catalog_of(tmp_path)) == {
        "cat/1.png": "cat",
        "cat/small/2.png": "cat",
        "cat/small/very/3.png": "cat",
        "dog/old/4.png": "dog",
    }


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    tree(tmp_path / "n", *(f"{number}/a.png" for number in range(12)))
    assert catalog_of(tmp_path / "n").classes == tuple(str(number) for number in range(12))
    tree(tmp_path / "w", *(f"{number}/a.png" for number in (1, 2, 10)), "x/a.png")
    assert catalog_of(tmp_path / "w").classes == ("1", "10", "2", "x")


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.PNG", "b/2.Jpg")
    assert len(catalog_of(tmp_path)) == 2


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_folders_of_one_folder_are_gone_through(tmp_path: Path, depth: int) -> None:
    below = "/".join(["inner"] * depth)
    tree(tmp_path, f"{below}/cat/1.png", f"{below}/dog/2.png")
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("cat", "dog")
    assert list(catalog.names) == ["cat/1.png", "dog/2.png"]
    assert any(below in note for note in catalog.notes)


@pytest.mark.parametrize(
    ("train", "val", "test"), [("train", "val", "test"), ("Training", "VALID", "testing")]
)
def test_part_folders_are_the_official_split(
    tmp_path: Path, train: str, val: str, test: str
) -> None:
    tree(
        tmp_path,
        *(f"{part}/{label}/{n}.png" for part in (train, val, test) for label in "ab" for n in "12"),
    )
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("a", "b")
    assert catalog.official is not None
    found = dict(zip(catalog.names, catalog.official.tolist(), strict=True))
    assert found == {
        f"{part}/{label}/{n}.png": number
        for number, part in enumerate((train, val, test))
        for label in "ab"
        for n in "12"
    }
    assert any("official split" in note for note in catalog.notes)


def test_part_folders_may_be_in_the_only_folder(tmp_path: Path) -> None:
    tree(tmp_path, "data/train/a/1.png", "data/train/b/2.png", "data/test/a/3.png")
    catalog = catalog_of(tmp_path)
    assert catalog.official is not None
    assert sorted(catalog.official.tolist()) == [0, 0, 2]


def test_a_class_of_the_test_part_only_is_a_class(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/2.png", "test/c/3.png")
    assert catalog_of(tmp_path).classes == ("a", "b", "c")


def test_a_test_folder_without_labels_is_left_out_and_said(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1.png", "train/b/2.png", "test/3.png", "test/4.png", "other/a/5.png")
    catalog = catalog_of(tmp_path)
    assert list(catalog.names) == ["train/a/1.png", "train/b/2.png"]
    strays = ("other/a/5.png", "test/3.png", "test/4.png")
    assert remarks_of(catalog)["images outside of class folders"] == strays
    assert any("test/3.png" in note for note in catalog.notes)


def test_classes_may_be_called_like_parts(tmp_path: Path) -> None:
    tree(tmp_path, "test/1.png", "exam/2.png")
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("exam", "test")
    assert catalog.official is None


def test_strays_are_left_out_and_said(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png", "preview.png")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\0")
    catalog = catalog_of(tmp_path)
    assert list(catalog.names) == ["cat/1.png", "dog/2.png"]
    assert remarks_of(catalog) == {
        "files that are no pictures": ("cat/Thumbs.db", "readme.txt"),
        "images outside of class folders": ("preview.png",),
    }
    assert any("preview.png" in note for note in catalog.notes)


def test_hidden_files_and_what_archives_leave_are_not_seen(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("cat/1.png", "dog/2.png", "cat/._1.png", ".git/3.png", "cat/.thumbs/4.png"),
        *("__MACOSX/cat/5.png", "dog/__MACOSX/6.png", ".hidden.png"),
    )
    catalog = catalog_of(tmp_path)
    assert list(catalog.names) == ["cat/1.png", "dog/2.png"]
    assert catalog.remarks == ()
    assert catalog.notes == ()


def test_folders_without_images_are_no_classes_and_remarked(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("cat", "dog")
    assert remarks_of(catalog)["folders without images"] == ("empty", "texts")


def test_a_table_beside_class_folders_is_not_used_and_said(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,x\n2.png,y\n")
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("cat", "dog")
    assert any("labels.csv" in note for note in catalog.notes)


@pytest.mark.parametrize("content", ["nothing", "folders", "texts"])
def test_a_folder_without_images_is_refused(tmp_path: Path, content: str) -> None:
    if content == "folders":
        (tmp_path / "a" / "b").mkdir(parents=True)
    if content == "texts":
        (tmp_path / "a.txt").write_text("cat")
    message = refusal(tmp_path)
    assert "no images" in message
    assert str(tmp_path) in message


def test_one_class_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "cat" / "1.png").write_bytes(b"broken")
    assert "at least 2 classes" in refusal(tmp_path, exclude=("dog",))


def test_classes_are_left_out_by_name(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "BACKGROUND_Google/2.png", "dog/3.png", "ant/4.png", "cat/5.png")
    catalog = catalog_of(tmp_path, exclude=("BACKGROUND_Google", "ant"))
    assert class_of(catalog) == {"cat/1.png": "cat", "cat/5.png": "cat", "dog/3.png": "dog"}
    data = load(tmp_path, exclude=("BACKGROUND_Google", "ant"))
    assert class_of(data) == class_of(catalog)
    assert data.images[:, 0, 0, 0].tolist() == [0, 4, 2]


def test_to_leave_out_what_is_not_there_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png")
    message = refusal(tmp_path, exclude=("background",))
    assert "'background'" in message
    assert "cat, dog" in message
    assert "no images" in refusal(tmp_path, exclude=("cat", "dog"))


def test_broken_pictures_of_classes_left_out_are_not_read(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png", "zoo/3.png")
    (tmp_path / "zoo" / "3.png").write_bytes(b"broken")
    assert load(tmp_path, exclude=("zoo",)).classes == ("cat", "dog")
    with pytest.raises(UnreadableImagesError):
        load(tmp_path)


# ---- links and odd files


def test_links_inside_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png", ".store/3.png", ".store/deep/4.png")
    (tmp_path / "dog" / "link.png").symlink_to("../cat/1.png")
    (tmp_path / "owl").symlink_to(tmp_path / ".store")
    assert class_of(catalog_of(tmp_path)) == {
        "cat/1.png": "cat",
        "dog/2.png": "dog",
        "dog/link.png": "dog",
        "owl/3.png": "owl",
        "owl/deep/4.png": "owl",
    }


def test_a_folder_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    # Whatever order the file system lists them in: links to it sort before and after.
    tree(tmp_path, "cat/1.png", "cat/in/2.png", "dog/3.png")
    for name in ("ant", "zebra", "bee"):
        (tmp_path / name).symlink_to("cat")
    (tmp_path / "dog" / "a").symlink_to("../cat/in")
    catalog = catalog_of(tmp_path)
    assert list(catalog.names) == ["cat/1.png", "cat/in/2.png", "dog/3.png"]
    assert remarks_of(catalog)["folders without images"] == ("ant", "bee", "zebra")


def test_of_several_links_to_a_folder_the_first_counts(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png", ".store/3.png")
    for name in ("yak", "fox", "ape", "owl", "bat", "zoo", "elk"):
        (tmp_path / name).symlink_to(".store")
    assert list(catalog_of(tmp_path).names) == ["ape/3.png", "cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("loop", [".", "..", "../..", "again", "../cat/deep"])
def test_links_in_circles_end(tmp_path: Path, loop: str) -> None:
    root = tree(tmp_path / "data", "cat/deep/1.png", "dog/2.png")
    link = root / "cat" / "deep" / "again"
    link.symlink_to(loop)
    if loop == "../..":
        (root / "again").symlink_to("cat")
    assert list(catalog_of(root).names) == ["cat/deep/1.png", "dog/2.png"]


def test_a_link_to_itself_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "cat" / "x.png").symlink_to("x.png")
    (tmp_path / "cat" / "y.png").symlink_to("../gone.png")
    with pytest.raises(UnreadableImagesError) as caught:
        load(tmp_path)
    assert [image.name for image in caught.value.images] == ["cat/x.png", "cat/y.png"]
    assert "symbolic links" in caught.value.images[0].reason
    assert "No such file" in caught.value.images[1].reason
    assert len(load(tmp_path, on_error="skip")) == 2
    assert remarks_of(catalog_of(tmp_path)) == {"files that are no pictures": ("self",)}


@pytest.mark.parametrize("name", ["cat/x.png", "owl", "cat/in", "text.txt", "cat/later.png"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "data", "cat/1.png", "dog/2.png")
    tree(tmp_path / "data-of-others", "secret/3.png")
    (tmp_path / "data-of-others" / "text.txt").write_text("secret")
    target = {"cat/x.png": "secret/3.png", "owl": "secret", "cat/in": "", "text.txt": "text.txt"}
    (root / name).symlink_to(tmp_path / "data-of-others" / target.get(name, "not-yet.png"))
    message = refusal(root)
    assert repr(name) in message
    assert "leads out" in message


def test_a_relative_link_that_leads_out_through_a_link_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "cat/1.png", "dog/2.png")
    tree(tmp_path / "secret", "3.png")
    (root / "cat" / "up").symlink_to("../..")
    assert "leads out" in refusal(root)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    tree(tmp_path / "data", "cat/1.png", "dog/2.png")
    (tmp_path / "link").symlink_to("data")
    assert list(catalog_of(tmp_path / "link").names) == ["cat/1.png", "dog/2.png"]


def test_pipes_and_folders_with_names_of_pictures_are_not_opened(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "dog/2.png", "dog/folder.png/3.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    catalog = catalog_of(tmp_path)
    assert list(catalog.names) == ["cat/1.png", "dog/2.png", "dog/folder.png/3.png"]
    assert remarks_of(catalog)["files that are no pictures"] == ("cat/pipe.png",)
    assert len(load(tmp_path)) == 3


HOSTILE = [
    *("new\nline", "tab\tbed", "\x1b[31mred\x1b[0m", "<script>alert(1)</script>", "[bold]x[/bold]"),
    *(
        "right\u202eleft",
        "null\u200bwidth",
        "a:b",
        'quo"te',
        "it's",
        "back\\slash",
        "%s {0}",
        "-rf",
    ),
    *(" space ", "ünï😀", "~", "$HOME", "a;b|c&d", "&amp;", "\x7f", "con", "*"),
    os.fsdecode(b"latin\xe9"),
    os.fsdecode(b"\xff\xfe"),
]


def test_hostile_names_are_kept_safe(tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        picture(tmp_path / name / f"{name.replace('/', '')}.png", number)
    data = load(tmp_path)
    assert len(data) == len(HOSTILE)
    texts = [data.name, *data.classes, *(data.names or ()), *data.notes]
    assert all(text.isprintable() for text in texts)
    assert len(set(data.classes)) == len(HOSTILE)
    for name in ("<script>alert(1)<", "[bold]x[", "ünï😀", " space ", "back\\slash"):
        # What prints is left as it is; console and HTML escape their own.
        assert name in data.classes
    # Every picture is in the class of its folder, whatever it is called.
    values = dict(zip(data.classes, range(len(data.classes)), strict=True))
    by_value = {
        int(image[0, 0, 0]): label for image, label in zip(data.images, data.labels, strict=True)
    }
    assert by_value[HOSTILE.index("-rf")] == values["-rf"]
    assert by_value[HOSTILE.index("new\nline")] == values["new\\nline"]
    assert by_value[len(HOSTILE) - 2] == values["latin\\udce9"]


def test_hostile_names_of_bad_pictures_are_shown_safely(tmp_path: Path) -> None:
    for name in HOSTILE:
        picture(tmp_path / name / "good.png")
        (tmp_path / name / f"{name}.png".replace("/", "")).write_bytes(b"bad")
    with pytest.raises(UnreadableImagesError) as caught:
        load(tmp_path)
    assert str(caught.value).isprintable()
    assert len(caught.value.images) == len(HOSTILE)
    assert all(str(image).isprintable() for image in caught.value.images)


def test_classes_that_look_the_same_once_safe_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a\nb/1.png", "a\\nb/2.png")
    assert "repeat" in refusal(tmp_path)


def test_a_hostile_folder_is_named_safely(tmp_path: Path) -> None:
    root = tmp_path / "evil\x1b[31m\n"
    tree(root, "in\nner/cat/1.png", "in\nner/dog/2.png")
    data = load(root)
    assert data.name == "evil\\x1b[31m\\n"
    assert any("in\\nner" in note for note in data.notes)
    assert all(note.isprintable() for note in data.notes)
    (root / "in\nner" / "cat" / "x\n.png").symlink_to("/etc/hostname")
    assert "x\\n.png" in refusal(root)


def test_thousands_of_folders_deep_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    for _ in range(300):
        folder = folder / "d"
    tree(folder, "1.png")
    tree(tmp_path, "dog/2.png", "cat/0.png")
    assert len(catalog_of(tmp_path)) == 3


def test_a_folder_that_changes_while_it_is_read_does_no_harm(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(30)))
    catalog = catalog_of(tmp_path)
    (tmp_path / "a" / "7.png").unlink()
    results = [next(iter(catalog.images.read(row, row + 1))) for row in range(len(catalog))]
    bad = [result for result in results if not isinstance(result, Image.Image)]
    assert len(bad) == 1
    assert "a/7.png" in str(bad[0])


# ---- as torchvision reads it

NAMES = st.text(alphabet="ab1 É-", min_size=1, max_size=4).filter(lambda text: text.strip() == text)
SUFFIX = st.sampled_from([".png", ".jpg", ".JPEG", ".tiff", ".webp", ".bmp", ".pgm", ".txt", ""])
FILES = st.tuples(NAMES, SUFFIX).map("".join)
PATHS = st.lists(NAMES, max_size=3).flatmap(
    lambda folders: FILES.map(lambda file: "/".join([*folders, file]))
)


@settings(max_examples=150)
@given(st.dictionaries(NAMES, st.sets(PATHS, min_size=1, max_size=5), min_size=2, max_size=4))
def test_a_random_tree_is_read_as_torchvision_reads_it(classes: dict[str, set[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in classes.items():
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "always.png").touch()
            for path in paths:
                file = Path(folder) / name / path
                try:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    assume(False)  # one name for a file and a folder
        catalog = catalog_of(Path(folder))
        theirs = ImageFolder(folder)
        numbers = all(name.isdigit() for name in theirs.classes)
        assert list(catalog.classes) == (
            sorted(theirs.classes, key=lambda name: (int(name), name))
            if numbers
            else theirs.classes
        )
        expected = {
            Path(path).relative_to(folder).as_posix(): theirs.classes[label]
            for path, label in theirs.samples
        }
        assert class_of(catalog) == expected
        assert list(catalog.names) == sorted(expected)


# ---- labels in file names


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("dog_12.png", "dog"),
        ("great_dane-7.png", "great_dane"),
        ("great dane (3).png", "great dane"),
        ("owl7.png", "owl"),
        ("A4_paper_009.png", "A4_paper"),
        ("été.1.png", "été"),
    ],
)
def test_the_word_before_a_number_is_guessed(tmp_path: Path, name: str, label: str) -> None:
    tree(tmp_path, name, "zebra.1.png", "zebra.2.png", "zebra.3.png")
    catalog = catalog_of(tmp_path)
    assert class_of(catalog)[name] == label
    assert set(catalog.classes) == {label, "zebra"}
    assert any("before the number" in note for note in catalog.notes)
    assert catalog.groups is None
    assert catalog.columns == ()


@pytest.mark.parametrize(
    "names",
    [
        ("cat.png", "dog.png"),
        ("1.png", "2.png", "3.png"),
        ("cat.1.png", "cat.2.png"),
        ("a1.png", "b1.png", "c1.png", "d1.png", "e1.png"),
        ("cat.1.png", "dog.1.png", "other.png"),
    ],
    ids=["no numbers", "numbers only", "one label", "all different", "one without number"],
)
def test_names_that_tell_no_label_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    message = refusal(tree(tmp_path, *names))
    assert "pattern" in message
    assert names[0] in message


def test_names_in_part_folders_keep_the_official_split(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat.1.png", "train/cat.2.png", "train/dog.3.png", "test/dog.4.png")
    catalog = catalog_of(tmp_path)
    assert catalog.classes == ("cat", "dog")
    assert catalog.official is not None
    assert dict(zip(catalog.names, catalog.official.tolist(), strict=True)) == {
        "train/cat.1.png": 0,
        "train/cat.2.png": 0,
        "train/dog.3.png": 0,
        "test/dog.4.png": 2,
    }


def test_a_pattern_names_the_label(tmp_path: Path) -> None:
    tree(tmp_path, "x_cat.png", "y_dog.png", "zz_cat.png", "deep/w_owl.png")
    catalog = catalog_of(tmp_path, options={"pattern": "*_{label}.png"})
    assert class_of(catalog) == {
        "x_cat.png": "cat",
        "y_dog.png": "dog",
        "zz_cat.png": "cat",
        "deep/w_owl.png": "owl",
    }


def test_a_pattern_names_group_and_split_and_several_fields(tmp_path: Path) -> None:
    names = [
        f"{split}-{person}-{sex}-{side}.png"
        for split, person in (("train", "ann"), ("test", "bob"), ("none", "cyd"))
        for sex in ("male", "female")
        for side in ("dorsal left", "palmar")
    ]
    tree(tmp_path, *names)
    pattern = "{split}-{group}-{gender}-{aspect}.png"
    assert "none" in refusal(tmp_path, options={"pattern": pattern})
    for name in names[8:]:
        (tmp_path / name).unlink()
    catalog = catalog_of(tmp_path, options={"pattern": pattern})
    assert catalog.columns == ("gender", "aspect")
    assert catalog.classes == (
        *("female dorsal left", "female palmar", "male dorsal left", "male palmar"),
    )
    assert catalog.class_parts[2] == ("male", "dorsal left")
    assert catalog.groups is not None
    assert catalog.official is not None
    for name, group, part in zip(catalog.names, catalog.groups, catalog.official, strict=True):
        assert name.split("-")[:2] == [{0: "train", 2: "test"}[int(part)], group]


def test_a_pattern_with_a_slash_is_for_the_whole_path(tmp_path: Path) -> None:
    tree(tmp_path, "ann/cat/1.png", "ann/dog/2.png", "bob/cat/3.png")
    catalog = catalog_of(tmp_path, options={"pattern": "{group}/{label}/*.png"})
    assert class_of(catalog)["bob/cat/3.png"] == "cat"
    assert list(catalog.groups or ()) == ["ann", "ann", "bob"]


def test_names_that_a_pattern_does_not_fit(tmp_path: Path) -> None:
    tree(tmp_path, "cat.1.png", "dog.2.png", "odd.png", "even.JPG")
    options = {"pattern": "{label}.*.png"}
    message = refusal(tmp_path, options=options)
    assert "2 of 4" in message
    assert "even.JPG, odd.png" in message
    catalog = catalog_of(tmp_path, options=options, on_error="skip")
    assert list(catalog.names) == ["cat.1.png", "dog.2.png"]
    assert remarks_of(catalog)["files that the pattern does not fit"] == ("even.JPG", "odd.png")
    nowhere = {"pattern": "{label}+{group}"}
    assert "does not fit" in refusal(tmp_path, options=nowhere, on_error="skip")


def test_fields_that_join_to_the_same_label_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a b-c.png", "a-b c.png")
    message = refusal(tmp_path, options={"pattern": "{x}-{y}.png"})
    assert "'a b c'" in message


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("*.png", "no {label}"),
        ("{group}.png", "no {label}"),
        ("", "text"),
        ("{}", "{}"),
        ("{label}{label}", "{label}"),
        ("{label.__class__}.png", "{label.__class__}"),
        ("{0}.png", "{0}"),
        ("{label", "{"),
        ("label}", "}"),
        ("{{label}}", "{"),
        ("{a b}.png", "{a b}"),
        ("{ünï}.png", "{ünï}"),
        ("{label:>9999999}.png", "{label:>9999999}"),
        ("{" + "x" * 99 + "}", "x" * 99),
        ("*" * 50 + "{label}", "too many"),
    ],
)
def test_a_pattern_that_is_not_understood_is_refused(
    tmp_path: Path, pattern: str, told: str
) -> None:
    tree(tmp_path, "cat.1.png", "dog.2.png")
    assert told in refusal(tmp_path, options={"pattern": pattern})


@pytest.mark.parametrize(
    "pattern", ["(.+.+)+{label}.png", "[a-z]{label}", ".{label}.p?g", "^{label}$"]
)
def test_a_pattern_is_no_regular_expression(tmp_path: Path, pattern: str) -> None:
    tree(tmp_path, "cat.1.png", "dog.2.png")
    assert "does not fit" in refusal(tmp_path, options={"pattern": pattern})


FIELDS = ["{label}", "{a}", "{b}"]


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(["*", "_", "/", ".", "ab", *FIELDS]), max_size=8),
    st.text(alphabet="ab_./\n", max_size=14),
)
@example(["*", "_", "{label}", "/", "*"], "a_b/a_b/a")
@example(["{label}", ".", "ab"], "a.ab.ab")
def test_a_pattern_means_what_a_regular_expression_means(pieces: list[str], name: str) -> None:
    used = [piece for piece in pieces if piece in FIELDS]
    assume(used and len(set(used)) == len(used))
    match, fields = compile_pattern("".join(pieces))
    assert [f"{{{field}}}" for field in fields] == used
    meaning = {"*": ".*?", **{field: f"(?P<{field[1:-1]}>[^/]+?)" for field in FIELDS}}
    regex = "".join(meaning.get(piece, re.escape(piece)) for piece in pieces)
    expected = re.fullmatch(regex, name, re.DOTALL)
    assert match(name) == (expected.groupdict() if expected else None)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Ends a test that would hang."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "pattern",
    ["*_*_*_*_*_*_*_{label}.gif", "{a}_{b}_{c}_{d}_{e}_{f}.gif", "{a}{b}{c}{d}{e}{f}.gif"],
)
def test_a_pattern_does_not_take_for_ever(pattern: str) -> None:
    match, _ = compile_pattern(pattern)
    assert match("a_" * 120 + ".png") is None
    assert match("a_" * 120 + "b.gif") is not None


# ---- listing and reading


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list_files(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be read"):
        list_files(tmp_path / "file")


def test_the_key_of_files_is_their_content(tmp_path: Path) -> None:
    tree(tmp_path / "one", "a.png", "b.png")
    tree(tmp_path / "two", "x.png", "y.png")
    one, two = (
        FileReader(tmp_path / "one", ["a.png", "b.png"]),
        FileReader(tmp_path / "two", ["x.png", "y.png"]),
    )
    assert one.content_key() == two.content_key()
    assert one.signature() != two.signature()
    swapped = FileReader(tmp_path / "one", ["b.png", "a.png"])
    assert swapped.content_key() != one.content_key()
    before = one.signature()
    assert one.signature() == before
    os.utime(tmp_path / "one" / "a.png", ns=(1, time.time_ns() + 1))
    assert one.signature() != before
    assert one.content_key() == two.content_key()
    (tmp_path / "one" / "a.png").unlink()
    assert one.signature() != before
    assert one.content_key() != two.content_key()


@pytest.mark.parametrize("rows", [[0], [0, 1, 2], [2, 1], [4, 0, 1, 3], []])
def test_some_of_a_readers_images_are_read_in_their_order(tmp_path: Path, rows: list[int]) -> None:
    from hpsearch.data.catalog import Selected

    tree(tmp_path, *(f"{number}.png" for number in range(5)))
    reader = Selected(
        FileReader(tmp_path, [f"{number}.png" for number in range(5)]), np.array(rows, np.int64)
    )
    found = []
    for image in reader.read(0, len(rows)):
        assert isinstance(image, Image.Image)
        found.append(image.getpixel((0, 0))[0])  # type: ignore[index]
        image.close()
    assert found == rows


@pytest.mark.parametrize("name", ["{label}_{n}.png", "{n}.png"])
def test_a_class_may_be_called_train(tmp_path: Path, name: str) -> None:
    for label in ("train", "bus", "car"):
        for number in range(3):
            path = tmp_path / label / name.format(label="blue", n=number)
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
    catalog = open_catalog(DataSpec(source=str(tmp_path)))
    assert catalog.classes == ("bus", "car", "train")
    assert catalog.official is None


def test_the_only_folder_may_not_be_a_link_that_leads_out(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "secret" / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "secret" / label / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="leads out"):
        open_catalog(DataSpec(source=str(tmp_path / "data")))


def test_images_deeper_than_the_class_folders_are_said(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label / "inner").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / label / "inner" / "1.png")
    notes = open_catalog(DataSpec(source=str(tmp_path))).notes
    assert notes == (
        "2 images lie in folders below the class folders, and are taken, too: a/inner, b/inner",
    )


def test_pictures_of_kinds_that_are_not_read_are_said(tmp_path: Path) -> None:
    for path in ("cat/1.HEIC", "cat/2.heic", "dog/3.CR2"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"\0")
    told = "2 .heic and 1 .cr2 pictures are not read, convert them to JPEG or PNG: cat/1.HEIC, "
    with pytest.raises(DataError, match="no images in this folder that are read") as caught:
        catalog_of(tmp_path)
    assert told in str(caught.value)
    tree(tmp_path, "cat/4.png", "dog/5.png")
    catalog = catalog_of(tmp_path)
    assert list(catalog.names) == ["cat/4.png", "dog/5.png"]
    assert catalog.notes[0].startswith(told)
    assert remarks_of(catalog) == {
        "pictures that are not read": ("cat/1.HEIC", "cat/2.heic", "dog/3.CR2")
    }
    (tmp_path / "dog" / "3.CR2").unlink()
    (tmp_path / "cat" / "2.heic").unlink()
    told = "1 .heic picture is not read, convert it to JPEG or PNG: cat/1.HEIC"
    assert catalog_of(tmp_path).notes == (told,)
