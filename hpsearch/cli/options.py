"""Options that several commands have, and what they mean together."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import shlex
import threading
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.names import without_password

if TYPE_CHECKING:
    from hpsearch.data.spec import DataSpec
    from hpsearch.data.splits import SplitSpec
    from hpsearch.engine.place import Place
    from hpsearch.errors import HpsearchError

RUNS = Path("runs")

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

STORAGE = "HPSEARCH_STORAGE"
"""The environment variable that stands for --storage."""

PASSWORD_HINT = "  (*** stands for the password)"  # noqa: S105

Runs = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Folder of the searches and their storage.")
]
Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", help="The search; by default the one started last that is no ablation."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE,
        show_envvar=False,
        help="Database of the searches, such as postgresql://HOST/NAME; by default a file in "
        f"--runs. Better given as {STORAGE}, since command lines can be seen by others.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
]
TrialName = Annotated[
    str | None,
    typer.Option(
        "--trial", metavar="TRIAL", help="A trial such as cnn-7; by default the best one."
    ),
]
ReplaceExport = Annotated[
    bool, typer.Option("--force", help="Replace an export that is there already.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC", help="A name such as digits, a folder, or a file; see 'hpsearch data list'."
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How to read data whose images' shape is known: options of every command that reads some (see
    `takes`).
    """

    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=VALUE",
            help="How to read the data, such as label=gender,aspect; 'hpsearch data list' has what "
            "each source understands. Give the option again for more.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="A class to leave out; give the option again for more."),
    ] = None
    on_error: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What to do about images that cannot be read: fail (default), or skip them.",
        ),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a torchvision data set that is not here yet.")
    ] = False

    def spec(self, base: DataSpec | str) -> DataSpec:
        """What the source `base` becomes with these options on top."""
        from hpsearch.data.spec import DataSpec
        from hpsearch.errors import DataError

        base = DataSpec.of(base)
        given = parse_pairs(
            "--with",
            self.with_ or [],
            example="label=gender,aspect",
            error=DataError,
            hint="several names have commas: A,B",
        )
        options: dict[str, Any] = {**base.options, **dict(given)}
        if self.download:
            options["download"] = True
        changes = {"options": options, **self._changes()}
        return dataclasses.replace(base, **{k: v for k, v in changes.items() if v is not None})

    def _changes(self) -> dict[str, Any]:
        """Fields of a `DataSpec`; None where nothing is asked for."""
        return {
            "exclude": tuple(self.exclude) if self.exclude else None,
            "on_error": self.on_error,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(ReadingOptions):
    """How to read data, and what shape its images are brought to: options of every command that
    reads data for something new (see `takes`).
    """

    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Bring images to this size: 64, or height x width as 48x64."
        ),
    ] = None
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How, where the proportions differ: crop (default), pad or stretch.",
        ),
    ] = None
    gray: Annotated[
        bool | None,
        typer.Option("--gray/--rgb", help="One channel or three; by default what the images have."),
    ] = None

    def _changes(self) -> dict[str, Any]:
        from hpsearch.data.spec import parse_size

        return {
            **super()._changes(),
            "size": None if self.size is None else parse_size(self.size),
            "fit": self.fit,
            "gray": self.gray,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How to split data: options of every command that splits some (see `takes`)."""

    split: Annotated[
        str | None,
        typer.Option(
            metavar="A/B/C",
            help="Percentages of training, validation and test images (60/20/20). An official test "
            "or validation part is kept.",
        ),
    ] = None
    split_seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of the split into train, validation and test."),
    ] = None
    ignore_official: Annotated[
        bool,
        typer.Option("--ignore-official", help="Draw all parts, even where the data has a split."),
    ] = False
    ignore_groups: Annotated[
        bool,
        typer.Option("--ignore-groups", help="Let a group (a person) be on two sides of a split."),
    ] = False
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Let a class be absent from a part of the split."),
    ] = False

    def spec(self, base: SplitSpec | None = None) -> SplitSpec:
        """`base`, or the default split, with these options on top."""
        from hpsearch.data.splits import SplitSpec

        changes: dict[str, Any] = {}
        if self.split_seed is not None:
            changes["seed"] = self.split_seed
        if self.split is not None:
            changes["val"], changes["test"] = _fractions(self.split)
        if self.ignore_official:
            changes["official"] = False
        if self.ignore_groups:
            changes["by_group"] = False
        if self.allow_missing:
            changes["allow_missing"] = True
        return dataclasses.replace(base or SplitSpec(), **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """By what trials are run, and how long: options of every command that runs some (see
    `takes`).
    """

    device: Device = "auto"
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Several devices, such as cuda:0,cuda:1: one worker on each, or --workers shared "
            "out over them.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that run trials at the same time; by default as many as measurements "
            "favour. 0: none but this one.",
        ),
    ] = None
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop after so long, such as 90s, 30m, 2h or 1d, at the end of the running "
            "epochs; the same command goes on.",
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """What they mean to `search` and `join`."""
        from hpsearch.errors import SearchError

        if self.devices is not None and self.device != "auto":
            raise SearchError(
                f"--device {self.device} and --devices {self.devices} are both given; give one"
            )
        if self.workers is not None and self.workers < 0:
            raise SearchError(f"--workers must be 0 or more, but is {self.workers}")
        return {
            "device": self.device,
            "devices": () if self.devices is None else _names(self.devices),
            "workers": self.workers,
            "timeout": None if self.timeout is None else seconds_of(self.timeout),
        }


def takes(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command all options of some groups, each of which it gets as one argument.

    Args:
        groups: by the argument's name the group, one of the classes above.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [p for p in own.parameters.values() if p.name not in groups]
        for group in groups.values():
            hints = typing.get_type_hints(group, include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=hints[field.name],
                )
                for field in dataclasses.fields(group)
            ]

        @functools.wraps(command)
        def called(**values: Any) -> None:
            for name, group in groups.items():
                fields = [field.name for field in dataclasses.fields(group)]
                values[name] = group(**{field: values.pop(field) for field in fields})
            command(**values)

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        called.__signature__ = own.replace(parameters=keyword)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        return called

    return decorate


def seconds_of(text: str) -> float:
    """The seconds of a time such as 90, 90s, 30m, 1.5h or 1d.

    Raises:
        SearchError: it is none, or nothing at all.
    """
    from hpsearch.errors import SearchError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip(), flags=re.ASCII)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise SearchError(
            f"--timeout takes a time above 0, such as 90s, 30m, 2h or 1d, but got {text!r}"
        )
    return seconds


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}


def _names(text: str) -> tuple[str, ...]:
    from hpsearch.errors import SearchError

    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise SearchError(f"--devices takes names with commas: cuda:0,cuda:1, but got {text!r}")
    return names


def _fractions(parts: str) -> tuple[float, float]:
    """Validation and test fraction of a text such as 60/20/20."""
    from hpsearch.errors import DataError

    try:
        shares = [float(part) for part in parts.split("/")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not abs(sum(shares) - 100) < 1e-6 or not all(s > 0 for s in shares):
        raise DataError(
            "--split takes three percentages above 0 that add up to 100, such as 60/20/20, but got "
            f"{parts!r}"
        )
    return shares[1] / 100, shares[2] / 100


def parse_pairs(
    option: str,
    texts: Sequence[str],
    *,
    example: str,
    error: type[HpsearchError],
    hint: str = "give it once",
) -> list[tuple[str, str]]:
    """Name and value of each NAME=VALUE that was given after an option.

    Args:
        example: of one.
        error: of which kind to raise where one has not the form, or a name comes twice.
        hint: what to do about that.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise error(f"{option} takes NAME=VALUE, such as {example}, not {text!r}")
        if name in pairs:
            raise error(f"{option} {name} is given twice; {hint}")
        pairs[name] = value
    return list(pairs.items())


def place_options(place: Place) -> str:
    """The options by which other commands find the searches of a place, each after a space."""
    options = []
    if place.runs != RUNS:
        options += ["--runs", str(place.runs)]
    hint = ""
    if place.address is not None and place.address != os.environ.get(STORAGE):
        shown = without_password(place.address)
        options += ["--storage", shown]
        hint = "" if shown == place.address else PASSWORD_HINT
    return "".join(f" {shlex.quote(option)}" for option in options) + hint
