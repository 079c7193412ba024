"""What commands that run trials say in the end."""

from __future__ import annotations

import typer
from rich.console import Console

from hpsearch.cli.lines import finished_text
from hpsearch.cli.options import place_options
from hpsearch.cli.text import say
from hpsearch.engine.records import SearchRecord
from hpsearch.engine.states import INFEASIBLE
from hpsearch.engine.status_reader import why_over

SAME = "the same command"


def print_end(
    console: Console, record: SearchRecord, *, stopped: str = "", command: str = SAME
) -> None:
    """Says how a search ended, and what can be done next.

    Args:
        stopped: why it was asked to stop, or empty.
        command: by which it goes on.

    Raises:
        typer.Exit: trials were run, and none of them came to a result.
    """
    say(console, f"{finished_text(record)}. {ending_text(record, stopped, command=command)}")
    if not record.ranked():
        say(console, "no trial is complete, so there is nothing to export")
        if record.finished or record.count(INFEASIBLE):
            raise typer.Exit(1)
        return
    place = place_options(record.place)
    say(console, f"to export the best: hpsearch export {record.name}{place}")
    say(console, f"to look at all:     hpsearch dashboard{place}")


def ending_text(record: SearchRecord, stopped: str, *, command: str = SAME) -> str:
    """Why a search is over, or why it stopped; how to go on, where it can (see `print_end`)."""
    reason = why_over(record)
    if reason == "":
        return f"To add some: {command} with --trials {2 * record.finished}"
    if reason is not None:
        return reason[:1].upper() + reason[1:]
    if stopped:
        return f"It was stopped ({stopped}); {command} goes on"
    return f"To go on: {command}"
