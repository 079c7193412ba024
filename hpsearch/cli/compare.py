"""`hpsearch compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import AsJson
from hpsearch.cli.text import accuracy, make_table, output, say

if TYPE_CHECKING:
    from hpsearch.results.compare import Comparison


def compare_cli(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="The folder of an export.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="That of another one.")],
    as_json: AsJson = False,
) -> None:
    """Compare two exports on the same test images.

    By how much the second is better or worse, with a 95 % interval, and an exact test of whether
    that could be chance: McNemar's, or where the data has groups one over whole groups. It reads
    the predictions in the folders and opens no test split.
    """
    from hpsearch.results.compare import compare

    result = compare(first, second)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        _print(output(), result)
    for warning in result.warnings:
        say(Console(stderr=True), f"warning: {warning}")


def _print(console: Console, result: Comparison) -> None:
    table = make_table(left=("export",), right=("accuracy", "right", "right alone"))
    for folder, share, alone in (
        (result.first, result.first_accuracy, result.only_first_right),
        (result.second, result.second_accuracy, result.only_second_right),
    ):
        right = f"{result.both_right + alone:,}"
        table.add_row(folder, accuracy(share), right, f"{alone:,}")
    console.print(table)
    groups = "" if result.groups is None else f" of {result.groups:,} groups"
    say(
        console,
        f"{result.images:,} test images{groups}: both right {result.both_right:,}, "
        f"both wrong {result.both_wrong:,}",
    )
    interval = "no 95 % interval"
    if result.difference_95 is not None:
        low, high = (f"{100 * value:+.2f}" for value in result.difference_95)
        interval = f"95 % interval {low} to {high}"
    say(
        console,
        f"the second minus the first: {100 * result.difference:+.2f} percentage points "
        f"({interval}); "
        f"{result.method}: p = {result.p_value:.3g}",
    )
    say(console, result.conclusion)
