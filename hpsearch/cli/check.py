"""`hpsearch check`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import (
    RUNS,
    AsJson,
    DataOptions,
    Device,
    Runs,
    SplitOptions,
    Storage,
    takes,
)
from hpsearch.cli.progress import progress_line
from hpsearch.cli.study import Data, Families, NoFirst, Set, Study, study_spec
from hpsearch.cli.text import duration, say
from hpsearch.data.words import plural

if TYPE_CHECKING:
    from hpsearch.engine.overfit import OverfitCheck
    from hpsearch.engine.spec import StudySpec


@takes(reading=DataOptions, split=SplitOptions)
def check_cli(
    reading: DataOptions,
    split: SplitOptions,
    study: Study = None,
    data: Data = None,
    family: Families = None,
    set_: Set = None,
    no_first: NoFirst = False,
    trial: Annotated[
        str | None,
        typer.Option(
            metavar="TRIAL",
            help="Check this trial of a search instead, such as cnn-7, on the search's data.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The trial's search; by default the one started last."),
    ] = None,
    runs: Runs = RUNS,
    storage: Storage = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the training.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """See whether a configuration can learn two images of each class by heart.

    If it can't, there is a mistake in the data or a bad setting, and a search would only find that
    out slowly. Checks the settings of each family that a search tries first, without augmentation
    and dropout. Exit code 1 where one fails.
    """
    from hpsearch.cli.interrupt import stoppable
    from hpsearch.engine.overfit import check_study

    if trial is not None:
        _require_none(
            {
                "STUDY.py": study,
                "--data": data,
                "--family": family,
                "--set": set_,
                "--no-first": no_first,
                "--seed": seed,
            }
        )
        spec = _stored_study(name, reading, split, runs=runs, storage=storage)
    else:
        spec = study_spec(
            study,
            data,
            reading,
            split,
            families=family,
            no_first=no_first,
            name=name,
            seed=seed,
            overrides=set_ or [],
        )
    console = Console(stderr=as_json)
    results: list[OverfitCheck] = []
    with stoppable(console, "stopped"), progress_line(console) as show:
        for result in check_study(
            spec, runs=runs, storage=storage, trial=trial, device=device, watch=show
        ):
            results.append(result)
            if not as_json:
                _print_result(console, result)
    if as_json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _require_none(given: Mapping[str, object]) -> None:
    """A trial has its own settings, and is checked with them."""
    from hpsearch.errors import SearchError

    for option, value in given.items():
        if value is not None and value is not False and value != []:
            raise SearchError(
                f"--trial checks a trial with the data and settings of its search, and takes no "
                f"{option}; leave one of them out"
            )


def _stored_study(
    name: str | None,
    reading: DataOptions,
    split: SplitOptions,
    *,
    runs: Path,
    storage: str | None,
) -> StudySpec:
    """What a search was made with, whose data and split a trial of it was trained on."""
    from hpsearch.engine.search_reader import load_search
    from hpsearch.engine.spec import StudySpec

    record = load_search(runs, name, storage=storage)
    spec = StudySpec.from_dict({**record.spec, "data": record.data["source"]})
    return dataclasses.replace(
        spec, data=reading.spec(spec.data_spec), split=split.spec(spec.split)
    )


def _print_result(console: Console, result: OverfitCheck) -> None:
    took = f"{plural(result.epochs, 'epoch')}, {duration(result.seconds)}"
    if result.passed:
        say(console, f"{result.name}: ok, knows all {result.images} images by heart ({took})")
        return
    say(console, f"{result.name}: FAILED to learn {result.images} images by heart ({took})")
    for finding in result.findings:
        say(console, f"  {finding}")
