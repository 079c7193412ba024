"""`hpsearch ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hpsearch.cli.options import RUNS, Runs, Storage, WorkerOptions, parse_pairs, takes
from hpsearch.cli.text import (
    EPOCHS,
    output,
    say,
)


@takes(run=WorkerOptions)
def ablate_cli(
    run: WorkerOptions,
    search: Annotated[
        str, typer.Argument(metavar="NAME", help="The search whose trial is to be varied.")
    ],
    vary: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Parameters to vary, one at a time, such as lr,batch_size,optimizer: all choices "
            "of the search, or five values of its range.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A,B",
            help="A parameter to vary and the values to try, also such as were not searched: "
            "lr=1e-4,1e-3; a list has slashes (widths=512/256,256). Give the option again for "
            "more.",
        ),
    ] = None,
    around: Annotated[
        str, typer.Option(metavar="TRIAL", help="A trial such as cnn-7, or best.")
    ] = "best",
    epochs: Annotated[
        int | None,
        typer.Option(metavar="E", help="Epochs of each training; by default those of the search."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of all trainings; by default that of the trial."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the new search; by default NAME-ablation."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FIGURE.png",
            help="By default ablation.png among the files of the new search.",
        ),
    ] = None,
    runs: Runs = RUNS,
    storage: Storage = None,
) -> None:
    """Vary a trial's parameters, one at a time.

    The trial's configuration is trained again, and then with one parameter changed, as a search of
    its own on the same data and split: the same command again goes on with it. Then there is a
    figure with each parameter's curves.
    """
    by = run.arguments()  # before imports that take seconds
    _check_picture(out)
    import optuna

    from hpsearch.cli.ending import ending_text
    from hpsearch.cli.live import watched
    from hpsearch.cli.tables import print_ablation
    from hpsearch.engine.ablation import ablation_of
    from hpsearch.engine.ablation_spec import ablation_spec
    from hpsearch.engine.search import search as run_search
    from hpsearch.engine.search_reader import load_search
    from hpsearch.errors import SearchError
    from hpsearch.results.ablation import ablation_document
    from hpsearch.results.ablation_picture import FIGURE, write_picture
    from hpsearch.results.source import check_same_data

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    record = load_search(runs, search, storage=storage)
    trial = record.trial(around)
    spec = ablation_spec(
        record,
        vary=parse_vary(vary, values or []),
        around=trial,
        name=name,
        epochs=epochs,
        seed=seed,
    )
    check_same_data(trial)
    console = output()
    with watched(console) as view:
        done = run_search(spec, runs=runs, storage=storage, watch=view.watch, **by)
    ablation = ablation_of(done)
    if ablation is None:
        raise SearchError(f"search {done.name!r} is no ablation")
    picture = out or done.folder / FIGURE
    write_picture(ablation, picture)
    console.print()
    say(
        console,
        f"search {done.name}: one parameter at a time, around {trial.name} of search {record.name}",
    )
    print_ablation(console, ablation_document(ablation), done.objective)
    say(console, EPOCHS)
    if done.finished < int(done.spec["trials"]):
        say(console, ending_text(done, view.stopping))
    say(console, f"figure: {picture}")
    if not done.ranked():
        raise typer.Exit(1)


def parse_vary(names: str | None, values: list[str]) -> dict[str, tuple[Any, ...] | None]:
    """What --vary and --values say: by name the values, or None where they follow from the search.

    Raises:
        SearchError: none is named, or one of them twice, or the texts have not their form.
        SpaceError: a value has not its form.
    """
    from hpsearch.errors import SearchError
    from hpsearch.families import Range, parse_override

    given = [] if names is None else [part.strip() for part in names.split(",")]
    if not all(given) or any("=" in part for part in given):
        raise SearchError(
            f"--vary takes names such as lr,batch_size, but got {names!r}; values are given with "
            "--values NAME=A,B"
        )
    asked: list[tuple[str, tuple[Any, ...] | None]] = [(part, None) for part in given]
    for name, value in parse_pairs("--values", values, example="lr=1e-4,1e-3", error=SearchError):
        _, override = parse_override(f"{name}={value}", option="--values")
        if isinstance(override, Range):
            raise SearchError(
                f"--values {name} takes single values, such as lr=1e-4,1e-3, but got {value!r}"
            )
        asked.append((name, override if isinstance(override, tuple) else (override,)))
    if not asked:
        raise SearchError("say what to vary: --vary lr,optimizer, or --values lr=1e-4,1e-3")
    vary = dict(asked)
    if len(vary) < len(asked):
        twice = next(name for name in vary if sum(name == key for key, _ in asked) > 1)
        raise SearchError(f"{twice} is given twice; give it once, after --vary or --values")
    return vary


def _check_picture(path: Path | None) -> None:
    """Before anything is trained."""
    from hpsearch.errors import SearchError

    if path is not None and path.suffix.lower() != ".png":
        raise SearchError(f"-o {path}: the figure's name must end in .png")
    if path is not None and path.is_dir():
        raise SearchError(f"-o {path} is a folder; name a file in it")
