"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")

Runs = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Folder of the searches and their storage.")
]
Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The search; by default the one started last."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
