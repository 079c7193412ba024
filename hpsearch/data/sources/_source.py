"""What a row of the table of sources is made of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from hpsearch.checks import Option
from hpsearch.data.catalog import Catalog
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOption:
    """One thing that a user can say about a source, as `--with NAME=VALUE`.

    Attributes:
        kind: "text"; "names", several with commas between them; "number", whole and at least 1;
            "flag", yes or no; "path".
        choices: of a text, where only some will do.
        default: what it is where nothing is given; None leaves it out then.
    """

    name: str
    help: str
    kind: Literal["text", "names", "number", "flag", "path"] = "text"
    choices: tuple[str, ...] = ()
    default: Option | None = None

    def read(self, value: Option, source: str) -> Any:
        """`value` as the kind asks for: str, tuple of str, int, bool or str.

        Raises:
            DataError: it cannot be that.
        """
        if self.kind == "names":
            given = value.split(",") if isinstance(value, str) else value
            names = (
                tuple(str(item).strip() for item in given)
                if isinstance(given, tuple | list)
                else ()
            )
            if not names or not all(names) or len(set(names)) != len(names):
                raise self._refusal(
                    value, source, "one or more different names with commas between them"
                )
            return names
        if self.kind == "number":
            text = str(value)
            if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
                raise self._refusal(value, source, "a whole number of at least 1")
            return int(text)
        if self.kind == "flag":
            words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
            if str(value).lower() not in words:
                raise self._refusal(value, source, "yes or no")
            return words[str(value).lower()]
        if not isinstance(value, str) or not value:
            raise self._refusal(value, source, "a path" if self.kind == "path" else "a text")
        if self.choices and value not in self.choices:
            raise self._refusal(value, source, " or ".join(self.choices))
        return value

    def _refusal(self, value: Option, source: str, expected: str) -> DataError:
        return DataError(f"{source}: option {self.name!r} must be {expected}, but is {value!r}")


LAYOUT = SourceOption(
    name="layout",
    help="the order of the axes of images: NHWC (channels last) or NCHW",
    choices=("NHWC", "NCHW"),
)
"""Of the sources that hold arrays."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """One kind of source.

    Attributes:
        usage: what a user writes after `--data`.
        accepts: whether a specification is meant for this source; of two rows that accept it,
            the first one reads it.
        catalog: lists the images, given the specification and the options that it names or that
            have a default, read; raises `DataError` when it cannot.
        is_path: the text is a path, which means something else in another folder.
    """

    usage: str
    help: str
    accepts: Callable[[DataSpec], bool]
    catalog: Callable[[DataSpec, Mapping[str, Any]], Catalog]
    options: tuple[SourceOption, ...] = ()
    is_path: bool

    def read_options(self, spec: DataSpec) -> dict[str, Any]:
        """The options of `spec`, read, and the defaults of others.

        Raises:
            DataError: one that this source does not have, or a value that it cannot be.
        """
        known = {option.name: option for option in self.options}
        for name in spec.options:
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise DataError(f"{spec.source}: there is no option {name!r} ({self.usage}); {has}")
        given = {**self._defaults(), **spec.options}
        return {name: known[name].read(value, spec.source) for name, value in given.items()}

    def located(self, spec: DataSpec) -> DataSpec:
        """`spec` as it can be read from any folder: paths absolute, default ones written out."""
        paths = {option.name for option in self.options if option.kind == "path"}
        default_paths = {name: path for name, path in self._defaults().items() if name in paths}
        options = {
            name: str(Path(str(value)).resolve()) if name in paths else value
            for name, value in {**default_paths, **spec.options}.items()
        }
        source = str(Path(spec.source).resolve()) if self.is_path else spec.source
        return dataclasses.replace(spec, source=source, options=options)

    def _defaults(self) -> dict[str, Option]:
        return {
            option.name: option.default for option in self.options if option.default is not None
        }
