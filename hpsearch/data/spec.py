"""What data to use and how to make images of it: a `DataSpec`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from hpsearch.checks import JsonConfig, Options
from hpsearch.errors import DataError

Fit = Literal["crop", "pad", "stretch"]
OnError = Literal["fail", "skip"]

MAX_SIDE = 16_384
SKIP = '--on-error skip (in Python: DataSpec(..., on_error="skip"))'
"""How a user says that images that cannot be read are left out."""


@dataclasses.dataclass(frozen=True)
class DataSpec(JsonConfig):
    """Which images, and how they are brought to one shape.

    Attributes:
        source: a name or a path, as `--data` takes it; see `hpsearch.data.sources`.
        size: height and width in pixels that all images are brought to. None keeps those of
            arrays, and of files that are small and all of one size; others get a default one.
        fit: how an image gets there whose proportions differ: "crop" cuts the longer side
            around the middle, "pad" adds black borders, "stretch" distorts.
        gray: one channel instead of three. None: where all images are gray.
        exclude: classes to leave out.
        on_error: what images that cannot be read do: "fail", after all of them were found, or
            "skip" them.
        options: of the source, by name; `hpsearch data list` has them.
    """

    source: str = "digits"
    _: dataclasses.KW_ONLY
    size: tuple[int, int] | None = None
    fit: Fit = "crop"
    gray: bool | None = None
    exclude: tuple[str, ...] = ()
    on_error: OnError = "fail"
    options: Options = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.source, os.PathLike):
            object.__setattr__(self, "source", os.fspath(self.source))
        if not isinstance(self.source, str) or not self.source or "\0" in self.source:
            raise DataError(f"data: source must be a name or a path, but is {self.source!r}")
        names = [len(part.encode("utf-8", "replace")) for part in Path(self.source).parts]
        if max(names, default=0) > 255 or sum(names) > 3500:
            raise DataError(
                f"data: source is too long to be a path: {self.source[:40]!r} and so on"
            )
        if self.size is not None:
            object.__setattr__(self, "size", _checked_size(self.size))
        for name, allowed in (("fit", get_args(Fit)), ("on_error", get_args(OnError))):
            if getattr(self, name) not in allowed:
                raise DataError(
                    f"data: {name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, but is "
                    f"{getattr(self, name)!r}"
                )
        if self.gray is not None and not isinstance(self.gray, bool):
            raise DataError(f"data: gray must be true, false or None, but is {self.gray!r}")
        if not isinstance(self.exclude, tuple | list) or not all(
            isinstance(name, str) for name in self.exclude
        ):
            raise DataError(f"data: exclude must be a list of class names, not {self.exclude!r}")
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if not isinstance(self.options, Mapping):
            raise DataError(f"data: options must be a mapping, but are {self.options!r}")
        options = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.options.items()
        }
        object.__setattr__(self, "options", options)

    @classmethod
    def of(cls, data: DataSpec | str | os.PathLike[str]) -> DataSpec:
        """`data` itself, or the specification of the source that it names."""
        return data if isinstance(data, DataSpec) else cls(source=os.fspath(data))


def parse_size(text: str) -> tuple[int, int]:
    """256 (a square) or 480x640 (height x width).

    Raises:
        DataError: it is neither.
    """
    match = re.fullmatch(r"(\d{1,6})(?:[xX×](\d{1,6}))?", text.strip())
    if match is None:
        raise DataError(
            f"size must be one number (256) or height x width (480x640), but is {text!r}"
        )
    height = int(match[1])
    return _checked_size((height, int(match[2]) if match[2] else height))


def _checked_size(size: object) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, tuple | list)
        or len(sides) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        or not all(1 <= side <= MAX_SIDE for side in sides)
    ):
        raise DataError(
            f"size must be height and width, each from 1 to {MAX_SIDE} pixels, but is {size!r}"
        )
    return (sides[0], sides[1])
