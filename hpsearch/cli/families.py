"""`hpsearch families` and `hpsearch space`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from hpsearch.cli.options import AsJson
from hpsearch.cli.study import Set, parse_overrides
from hpsearch.cli.text import make_table, output, parameters, say

if TYPE_CHECKING:
    from hpsearch.data.dataset import ImageShape

ImageSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Size of your images: 64, or height x width as 48x64. Published weights want images "
        "of another size, such as 224, and get them.",
    ),
]
Channels = Annotated[int, typer.Option(metavar="N", help="3, or 1 for gray images.", min=1, max=3)]
Gray = Annotated[bool, typer.Option("--gray", help="As --channels 1.")]


def families_cli(
    name: Annotated[
        str | None, typer.Argument(metavar="FAMILY", help="Show the layers of this family's model.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="PRESET", help="A network of the family known by name.")
    ] = None,
    image_size: ImageSize = "64",
    channels: Channels = 3,
    gray: Gray = False,
    classes: Annotated[int, typer.Option(metavar="N", help="Number of classes.", min=2)] = 10,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """List the model families, or the layers of one.

    Of one: the stages and layers of its first known-good configuration, or of what --preset and
    --set make of it, with output shapes, parameters and multiplications. No weights are needed.
    """
    from hpsearch.errors import SpaceError
    from hpsearch.families import default_config, describe_families, describe_model

    if name is None:
        if preset is not None or set_:
            raise SpaceError(
                f"{'--set' if preset is None else '--preset'} is of one family: "
                "hpsearch families FAMILY ..."
            )
        _print_families(describe_families(), as_json)
        return
    overrides = parse_overrides(set_ or [])
    if preset is not None:
        _check_presets(name)
        overrides["preset"] = preset
    shape = _shape(image_size, 1 if gray else channels)
    document = describe_model(default_config(name, shape, overrides), shape, classes)
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        _print_model(document)


def space_cli(
    name: Annotated[str, typer.Argument(metavar="FAMILY", help="The model family.")],
    parameter: Annotated[
        str | None,
        typer.Argument(metavar="PARAMETER", help="Show this one, and what its choices mean."),
    ] = None,
    image_size: ImageSize = "64",
    channels: Channels = 3,
    gray: Gray = False,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Show the search space of a family, without running anything.

    First what is searched, then what --set can switch on; under --set, what is left of it.
    """
    from hpsearch.families import (
        check_overrides,
        describe_space,
        does_not_exist,
        families_with,
    )

    overrides = parse_overrides(set_ or [])
    shape = _shape(image_size, 1 if gray else channels)
    check_overrides((name,), shape, overrides)
    rows = describe_space(name, shape, overrides)
    if parameter is not None:
        known = families_with(parameter, (name,), shape)
        rows = [row for row in rows if row["name"] == parameter]
        if not rows:
            raise does_not_exist(parameter, known[name])
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    console = output()
    searched = [row for row in rows if row["searched"]]
    others = [row for row in rows if not row["searched"]]
    for title, part, default in (
        (f"{name}: searched, for images of {shape}", searched, "tried first"),
        (f"{name}: not searched unless --set says so (NAME=search, ...)", others, "value"),
    ):
        if part or parameter is None:
            _print_parameters(console, title, part, default)
    if parameter is not None:
        _print_meanings(console, rows[0]["meanings"])


def _check_presets(family: str) -> None:
    from hpsearch.errors import SpaceError
    from hpsearch.families import family_names, get_family
    from hpsearch.names import family_label

    if not get_family(family).presets:
        others = ", ".join(name for name in family_names() if get_family(name).presets)
        raise SpaceError(
            f"--preset: {family_label(family)} has none; these families have some: {others}"
        )


def _shape(size: str, channels: int) -> ImageShape:
    from hpsearch.data.dataset import ImageShape
    from hpsearch.data.spec import parse_size
    from hpsearch.errors import DataError

    if channels == 2:
        raise DataError("--channels is 3, or 1 for gray images, but is 2")
    height, width = parse_size(size)
    return ImageShape(height, width, channels)


def _print_families(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = make_table("model families", left=("family", "what it is"))
    for row in rows:
        text = Text(row["summary"])
        if row["presets"]:
            text.append(f"\npresets: {', '.join(row['presets'])}", style="dim")
        table.add_row(row["family"], text)
    console = output()
    console.print(table)
    say(console, "layers of one: hpsearch families NAME; its search space: hpsearch space NAME")


def _print_model(document: dict[str, Any]) -> None:
    console = output()
    given = document["input"]
    table = make_table(
        f"{document['family']}: {given['height']}x{given['width']}x{given['channels']}, "
        f"{document['classes']} classes",
        left=("stage", "layer", "kind"),
        right=("output", "parameters", "trained", "MACs"),
        spare=("trained", "MACs"),
    )
    stage = None
    for row in document["layers"]:
        table.add_row(
            "" if row["stage"] == stage else row["stage"],
            row["name"],
            row["kind"],
            "x".join(str(size) for size in row["output"]),
            *(f"{row[key]:,}" if row[key] else "" for key in ("parameters", "trained", "macs")),
        )
        stage = row["stage"]
    console.print(table)
    options = {k: v for k, v in document["options"].items() if v not in ([], "")}
    say(console, f"options: {parameters(options) or 'none'}")
    say(
        console,
        f"{document['parameters']:,} parameters: {document['trained']:,} trained, "
        f"{document['frozen']:,} frozen; {document['macs']:,} MACs an image "
        "(multiplications with their additions)",
    )


def _print_parameters(
    console: Console, title: str, rows: list[dict[str, Any]], default: str
) -> None:
    from hpsearch.families import condition_text
    from hpsearch.names import value_text

    table = make_table(title, left=("parameter", "range", default, "what"))
    for row in rows:
        scale = " (log scale)" if row["scale"] == "log" else ""
        also = f"; also {', '.join(row['also'])}" if row["also"] else ""
        text = Text(row["help"])
        if row["condition"]:
            text.append(
                f"{' ' if row['help'] else ''}[{condition_text(row['condition'])}]", style="dim"
            )
        table.add_row(
            row["name"],
            row["range"].removeprefix("one of ") + scale + also,
            value_text(row["default"]),
            text,
        )
    console.print(table)


def _print_meanings(console: Console, meanings: dict[str, str]) -> None:
    if not meanings:
        return
    table = make_table(left=("choice", "what it is"))
    for name, text in meanings.items():
        table.add_row(name, text)
    console.print(table)
