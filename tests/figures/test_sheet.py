from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.checks import CheckReport, Finding, Pair, Shift
from hpsearch.data.dataset import ImageDataset
from hpsearch.errors import DataError
from hpsearch.figures.sheet import MOST_PAIRS, check_sheet

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "&lt;b&gt; &amp;",
    "</style></title><svg onload=alert(1)>",
    "-->",
    "\x1b[31mred\n\x00\u202e",
    "{0} %s $x$",
    "x" * 4000,
]


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()
        assert not self._inside, "a tag is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._inside:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[Image.Image]:
        start = "data:image/png;base64,"
        sources = [attributes["src"] or "" for attributes in self.all("img")]
        assert all(source.startswith(start) for source in sources)
        return [
            Image.open(io.BytesIO(base64.b64decode(source[len(start) :]))) for source in sources
        ]


def dataset(channels: int = 3, side: int = 8, **changes: object) -> ImageDataset:
    shape = (40, side, side, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = ImageDataset("some", images, np.arange(40) % 2, ("ant", "bee"))
    return dataclasses.replace(data, **changes)  # type: ignore[arg-type]


def finding(*pairs: Pair, **changes: object) -> Finding:
    values = {"kind": "near duplicates", "severity": "warning", "message": "m", "count": 2}
    return Finding(**{**values, "pairs": pairs, **changes})  # type: ignore[arg-type]


def report(data: ImageDataset, *findings: Finding, **changes: object) -> CheckReport:
    values = {"split": None, "counts": {"images": 40, "classes": 2}}
    return CheckReport(
        data=data.fingerprint,
        findings=findings,
        **{**values, **changes},  # type: ignore[arg-type]
    )


def page(data: ImageDataset, *findings: Finding, show_test: bool = False) -> Page:
    return Page(check_sheet(report(data, *findings), data, show_test=show_test))


def test_findings_are_a_table_with_the_verdict() -> None:
    data = dataset()
    shown = page(
        data,
        finding(kind="groups on both sides", severity="error", message="3 groups leak"),
        finding(kind="imbalance", severity="note", message="ant is rare"),
    )
    assert "1 finding would make results wrong" in shown.text
    for text in ("groups on both sides", "3 groups leak", "imbalance", "ant is rare", "40 images"):
        assert text in shown.text
    assert {"error", "note"} <= {attributes.get("class") for attributes in shown.all("span")}
    assert "wrong" not in page(data).text
    assert "Nothing odd was found" in page(data).text


def test_a_pair_is_shown_side_by_side_with_what_is_known_of_it() -> None:
    data = dataset(names=[f"folder/{n}.png" for n in range(40)])
    pair = Pair(first=3, second=8, likeness=0.9876, mirrored=True, parts=("train", "val"))
    shown = page(data, finding(pair))
    for text in ("folder/3.png", "folder/8.png", "ant", "bee", "training", "validation"):
        assert text in shown.text
    assert "likeness 0.988, mirrored" in shown.text
    assert len(shown.pictures()) == 2
    assert "exact copies" in page(data, finding(Pair(first=0, second=1))).text


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "expected"), [(1, 128), (8, 128), (50, 100), (200, 200), (600, 256)]
)
def test_thumbnails_are_the_images(channels: int, side: int, expected: int) -> None:
    data = dataset(channels, side)
    first, second = page(data, finding(Pair(first=3, second=8))).pictures()
    assert first.size == second.size == (expected, expected)
    for picture, row in ((first, 3), (second, 8)):
        pixels = np.asarray(picture).reshape(expected, expected, channels)
        factor = expected // side
        if factor:  # each pixel became a square
            np.testing.assert_array_equal(pixels[::factor, ::factor], data.images[row])
        else:
            assert abs(pixels.mean() - data.images[row].mean()) < 3


def test_test_images_are_shown_only_if_asked_for() -> None:
    data = dataset()
    pairs = finding(
        Pair(first=0, second=1, parts=("train", "test")),
        Pair(first=2, second=3, parts=("test", "test")),
        Pair(first=4, second=5, parts=("val", "train")),
        Pair(first=6, second=7),
    )
    hidden, shown = page(data, pairs), page(data, pairs, show_test=True)
    assert (len(hidden.pictures()), len(shown.pictures())) == (5, 8)
    assert hidden.text.count("test image; --show-test shows it") == 3
    assert "--show-test" not in shown.text
    tests = {np.asarray(picture).tobytes() for picture in shown.pictures()[1:4]}
    assert not tests & {np.asarray(picture).tobytes() for picture in hidden.pictures()}


@pytest.mark.parametrize("name", NASTY)
def test_what_comes_from_outside_is_text(name: str) -> None:
    data = dataset(name=name, classes=(name, "b" + name), names=[name] * 40)
    nasty = finding(Pair(first=0, second=1), kind=name, message=name, names=(name,))
    shifts = (Shift(first=name, second=name, auc=0.5, error=0.1, words=(name,)),)
    text = check_sheet(report(data, nasty, shifts=shifts, counts={name: 3}), data)
    assert text.isprintable() or set(re.findall(r"[^ -~]", text)) <= set("\n±·…–")
    plain = Page(
        check_sheet(
            report(
                dataset(),
                finding(Pair(first=0, second=1)),
                shifts=(dataclasses.replace(shifts[0], first="a", second="b", words=("c",)),),
            ),
            dataset(),
        )
    )
    seen = Page(text)
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in plain.tags]
    assert "script" not in dict(seen.tags)
    for _, attributes in seen.tags:
        assert not [key for key in attributes if key.startswith("on")]
        assert set(attributes) <= {
            "class",
            "src",
            "alt",
            "lang",
            "charset",
            "name",
            "content",
            "http-equiv",
        }
    shown = " ".join(name.encode("unicode_escape").decode().split())
    assert shown[:100].strip() in seen.text


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    data = dataset()
    text = check_sheet(report(data, finding(Pair(first=0, second=1))), data)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = (a for a in Page(text).all("meta") if a.get("http-equiv"))
    assert "default-src 'none'" in (policy["content"] or "")
    assert not Page(text).all("link")


def test_many_pairs_are_cut_and_it_says_so() -> None:
    data = dataset()
    pairs = [Pair(first=n % 40, second=(n + 1) % 40) for n in range(MOST_PAIRS + 9)]
    shown = page(data, finding(*pairs), finding(*pairs[:3]))
    assert len(shown.pictures()) == 2 * (MOST_PAIRS + 3)
    assert shown.text.count(f"Only the first {MOST_PAIRS} pairs are shown") == 1


def test_counts_and_shifts_are_shown() -> None:
    data = dataset()
    shift = Shift(first="training", second="test", auc=0.834, error=0.012, words=("darker",))
    counts = {"images": 40, "classes": 2, "train": 24, "val": 8, "test": 8}
    shown = Page(check_sheet(report(data, shifts=(shift,), counts=counts), data))
    assert "40 images, 2 classes (24 training, 8 validation, 8 test)" in shown.text
    assert "AUC 0.83 ± 0.01" in shown.text
    assert "darker" in shown.text


def test_a_report_about_other_data_is_refused() -> None:
    with pytest.raises(DataError, match="not about some"):
        check_sheet(report(dataset()), dataset(side=9))
