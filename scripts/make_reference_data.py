"""Makes small data sets in the formats of the five reference projects, for studies/.

    .venv/bin/python scripts/make_reference_data.py NAME --out DIR [--images N | --scale S]

The pictures are drawn, not real: folders, file names, tables, sizes, class names, groups and
imbalance are those of the real data, what is learnt on them says nothing about it. NAME is one of

- hands: a table, HandInfo.csv, and photos of 1600x1200 of about 40 people in Hands/
- caltech101: 101_ObjectCategories/CLASS/image_0001.jpg, 101 classes and BACKGROUND_Google
- photos: train/cat.0.jpg and train/dog.0.jpg
- sign_language: A/ to I/, 224x224
- stl10: stl10_binary/train_X.bin and so on, 96x96, and the same as stl10.h5

or `all`, which makes each in a folder of its name. The largest takes about 12 seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
from _reference_caltech import BACKGROUND, CALTECH_COUNTS
from _reference_people import write_hands, write_sign_language
from _reference_pictures import draw_head, draw_thing, random_of, recipes, save

from hpsearch import DataSpec, HpsearchError, convert
from hpsearch.files import whole_folder

NOTE = """These data are made: scripts/make_reference_data.py {name} --scale {scale:g} --seed {seed}

They have the format of the real data set, but the pictures are drawn: scores on them say nothing
about the real ones.
"""


def make(name: str, out: Path, *, scale: float = 1.0, seed: int = 0) -> None:
    """Makes a data set in the folder `out`, whole or not at all.

    Args:
        name: one of `SETS`.
        scale: how many images, 1 for the default number.
        seed: of everything that is random.

    Raises:
        HpsearchError: the name or the scale is none, or the folder holds something.
    """
    if name not in SETS:
        raise HpsearchError(f"there is no data set {name!r} to make; there are {', '.join(SETS)}")
    if not 0 < scale <= 100:
        raise HpsearchError(f"the scale must be above 0 and at most 100, but is {scale:g}")
    if seed < 0:
        raise HpsearchError(f"the seed must be 0 or more, but is {seed}")
    out = out.resolve()
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    if out.exists():
        raise HpsearchError(f"{out} is there already, and not empty: name a new folder with --out")
    with whole_folder(out, replace=False) as folder:
        SETS[name].write(folder, round(SETS[name].images * scale), seed)
        note = NOTE.format(name=name, scale=scale, seed=seed)
        (folder / "MADE_DATA.txt").write_text(note, encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Set:
    """A data set that can be made: how many images it has at scale 1, and what writes it."""

    images: int
    write: Callable[[Path, int, int], None]


def _write_caltech101(folder: Path, images: int, seed: int) -> None:
    share = images / sum(CALTECH_COUNTS.values())
    looks = recipes(list(CALTECH_COUNTS))
    every = list(looks.values())
    for name, real in {**CALTECH_COUNTS, **BACKGROUND}.items():
        count = max(5, round(real * share))  # fewer could not be in all parts of a split
        for number in range(1, count + 1):
            random = random_of(seed, name, number)
            size = (int(random.integers(240, 321)), int(random.integers(180, 241)))
            size = size if random.uniform() < 0.75 else size[::-1]
            look = looks[name] if name in looks else every[random.integers(len(every))]
            image = draw_thing(random, size, look, turn=12)
            if random.uniform() < 0.04:
                image = image.convert("L")
            save(image, folder / "101_ObjectCategories" / name / f"image_{number:04d}.jpg")


def _write_photos(folder: Path, images: int, seed: int) -> None:
    for name in ("cat", "dog"):
        for number in range(max(10, round(images / 2))):
            random = random_of(seed, name, number)
            wide, high = random.integers(220, 501, 2).tolist()
            image = draw_head(random, (wide, high), is_cat=name == "cat")
            save(image, folder / "train" / f"{name}.{number}.jpg")


_STL10_CLASSES = (
    *("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
)


def _write_stl10(folder: Path, images: int, seed: int) -> None:
    below = folder / "stl10_binary"
    below.mkdir()
    train = _write_stl10_part(below, "train", images * 5 / 13, seed)
    _write_stl10_part(below, "test", images * 8 / 13, seed)
    (below / "class_names.txt").write_text("\n".join(_STL10_CLASSES) + "\n", encoding="utf-8")
    folds = [random_of(seed, "fold", fold).permutation(train)[: train // 5] for fold in range(10)]
    text = "".join(" ".join(map(str, sorted(fold))) + "\n" for fold in folds)
    (below / "fold_indices.txt").write_text(text, encoding="utf-8")
    # torchvision takes no files but those published, so what it reads here is kept in another form.
    spec = DataSpec(source="stl10", options={"root": str(folder)})
    with mock.patch("torchvision.datasets.stl10.check_integrity", return_value=True):
        convert(spec, folder / "stl10.h5")


def _write_stl10_part(folder: Path, part: str, images: float, seed: int) -> int:
    """Writes train_X.bin and train_y.bin, or those of the test part, and says how many it has."""
    looks = recipes(_STL10_CLASSES)
    each = max(5, round(images / len(_STL10_CLASSES)))
    labels = random_of(seed, part).permutation(np.repeat(np.arange(len(_STL10_CLASSES)), each))
    with (folder / f"{part}_X.bin").open("wb") as file:
        for number, label in enumerate(labels):
            look = looks[_STL10_CLASSES[label]]
            picture = draw_thing(random_of(seed, part, number), (96, 96), look)
            # Channels first, then columns, then rows.
            file.write(np.asarray(picture).transpose(2, 1, 0).tobytes())
    (labels + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")  # they count from 1
    return len(labels)


SETS: Mapping[str, Set] = {
    "hands": Set(600, write_hands),
    "caltech101": Set(1700, _write_caltech101),
    "photos": Set(800, _write_photos),
    "sign_language": Set(360, write_sign_language),
    "stl10": Set(2600, _write_stl10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=[*SETS, "all"])
    parser.add_argument("--out", type=Path, required=True, help="a folder that is new or empty")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--images", type=int, help="about how many")
    size.add_argument("--scale", type=float, default=1.0, help="of the default number, such as 0.1")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        for name, out in _wanted(given.name, given.out):
            scale = given.images / SETS[name].images if given.images is not None else given.scale
            make(name, out, scale=scale, seed=given.seed)
            print(f"{name}: made in {out}")
    except HpsearchError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _wanted(name: str, out: Path) -> Iterator[tuple[str, Path]]:
    if name == "all":
        yield from ((each, out / each) for each in SETS)
    else:
        yield name, out


if __name__ == "__main__":
    main()
