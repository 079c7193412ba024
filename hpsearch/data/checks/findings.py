"""What the check of a data set finds, as plain values that can be stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from hpsearch.data.dataset import ImageDataset
from hpsearch.errors import DataError

Severity = Literal["error", "warning", "note"]
"""An error would make results wrong; a warning may; a note is good to know."""

VERSION = 1
"""Raised when the checks change: stored reports of another version are made again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images that are copies of each other, or nearly.

    Attributes:
        first, second: row numbers.
        likeness: 1.0 where all pixels are equal, else the correlation of small versions.
        mirrored: one is the other one's mirror image.
        parts: the part of the split that each is in; "" where there is none.
    """

    first: int
    second: int
    likeness: float = 1.0
    mirrored: bool = False
    parts: tuple[str, str] = ("", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is odd about the data.

    Attributes:
        kind: a short name that stays the same, such as "exact duplicates".
        message: one line, with numbers and examples.
        count: how many images (or classes, groups, files) are concerned, all of them, where the
            lists below are cut.
        pairs: suspicious pairs, the most alike first.
        rows: images that are concerned.
        names: files, classes or groups that are concerned.
    """

    kind: str
    severity: Severity
    message: str
    count: int
    pairs: tuple[Pair, ...] = ()
    rows: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift:
    """How well a simple classifier tells two sets of images apart by cheap features.

    Attributes:
        first, second: the sets, such as "training" and "test".
        auc: area under the ROC curve on images that the classifier has not seen: 0.5 is chance.
        error: standard error of `auc`.
        words: how the second set differs from the first, such as "brighter"; most telling first.
    """

    first: str
    second: str
    auc: float
    error: float
    words: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckReport:
    """All that was found.

    Attributes:
        data: the fingerprint of the data set.
        split: the fingerprint of its split; None where it was checked without one.
        counts: images by part of the split, and in all ("images", "classes").
        findings: errors first.
        shifts: what was measured, whether or not it became a finding.
    """

    data: str
    split: str | None
    counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    shifts: tuple[Shift, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing was found that would make results wrong."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives the report back, equal."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckReport:
        """Reads what `to_dict` made, also after JSON turned its tuples into lists.

        Raises:
            DataError: it is no such report, or one of another version.
        """
        try:
            return cls._read(data)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise DataError(
                f"this is no report of a data check that can be read: {error}"
            ) from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> CheckReport:
        if data["version"] != VERSION:
            raise ValueError(f"it has version {data['version']!r}, not {VERSION}")
        return cls(
            data=_text(data["data"]),
            split=None if data["split"] is None else _text(data["split"]),
            counts={_text(name): int(count) for name, count in data["counts"].items()},
            findings=tuple(_finding(item) for item in data["findings"]),
            shifts=tuple(
                Shift(
                    first=_text(item["first"]),
                    second=_text(item["second"]),
                    auc=float(item["auc"]),
                    error=float(item["error"]),
                    words=tuple(_text(word) for word in item["words"]),
                )
                for item in data["shifts"]
            ),
        )


def _finding(item: Mapping[str, Any]) -> Finding:
    severity = item["severity"]
    if severity not in get_args(Severity):
        raise ValueError(f"unknown severity {severity!r}")
    return Finding(
        kind=_text(item["kind"]),
        severity=severity,
        message=_text(item["message"]),
        count=int(item["count"]),
        pairs=tuple(_pair(pair) for pair in item["pairs"]),
        rows=tuple(int(row) for row in item["rows"]),
        names=tuple(_text(name) for name in item["names"]),
    )


def _pair(item: Mapping[str, Any]) -> Pair:
    first, second = item["parts"]
    return Pair(
        first=int(item["first"]),
        second=int(item["second"]),
        likeness=float(item["likeness"]),
        mirrored=bool(item["mirrored"]),
        parts=(_text(first), _text(second)),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def image_name(dataset: ImageDataset, row: int) -> str:
    """What an image is called in its source, or else its number."""
    return f"image {row}" if dataset.names is None else dataset.names[row]


def by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; else in the order given."""
    order = get_args(Severity)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))
