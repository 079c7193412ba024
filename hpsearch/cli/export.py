"""`hpsearch export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hpsearch.cli.interrupt import stoppable
from hpsearch.cli.options import RUNS, Device, Name, ReplaceExport, Runs, Storage, TrialName
from hpsearch.cli.text import accuracy, objective_value, say, tested_text, times_text
from hpsearch.names import printable


def export_cli(
    name: Name = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="By default exports/NAME, or exports/NAME-TRIAL with --trial.",
        ),
    ] = None,
    trial: TrialName = None,
    force: ReplaceExport = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write the model for ONNX Runtime, too.")
    ] = False,
    runs: Runs = RUNS,
    storage: Storage = None,
    device: Device = "auto",
) -> None:
    """Export the best trial's model and test report.

    This opens the test split, which nothing before has seen; each time is recorded and counted.
    Of a search with several objectives, it is the best trial by the first one: name another of the
    Pareto front with --trial.
    """
    from hpsearch.engine.search_reader import load_search
    from hpsearch.results.export import export
    from hpsearch.results.words import validation_text

    record = load_search(runs, name, storage=storage)
    chosen = record.best if trial is None else record.trial(trial)
    folder = out or Path("exports") / (record.name if trial is None else f"{record.name}-{trial}")
    console = Console()
    if record.finished < record.spec["trials"]:
        say(
            Console(stderr=True),
            f"note: search {record.name} has {record.finished} of its {record.spec['trials']} "
            "trials so far; should a later one be better, its export is another look at the test "
            "split",
        )
    with stoppable(console, "stopped; nothing was written"):
        result = export(chosen, folder, replace=force, device=device, onnx=onnx)
    metrics = result.metrics
    test, new, objective = metrics["test"], metrics["test_of_new"], record.objective
    chosen_by = f"; {objective.label} {objective_value(objective, chosen.value)}, its objective"
    lines = [
        f"trial {chosen.name} of search {record.name}",
        f"validation        {validation_text(metrics)}"
        + (chosen_by if objective.name != "val_accuracy" else ""),
        *([] if new is None else [f"new test images   {tested_text(new)}"]),
        f"{'test' if new is None else 'all test images':17} {tested_text(test)}",
        *(
            f"{name} alone".ljust(17) + f" {accuracy(column['accuracy'])}"
            for name, column in test.get("columns", {}).items()
        ),
        f"test split        opened {times_text(result.times_opened)}, counting all searches over "
        "it",
        f"report            {result.report_html}",
        f"confusion matrix  {result.confusion_png}",
        f"predictions       {result.predictions_csv}",
        f"mistakes          {result.mistakes_png}",
        f"learning curves   {result.curves_png}",
        f"checkpoint        {result.checkpoint}",
    ]
    if result.program is not None:
        lines.append(f"PyTorch alone     {result.program}")
    if result.onnx is not None:
        lines.append(f"ONNX Runtime      {result.onnx}")
    lines += [f"note: {note}" for note in result.notes]
    lines.append(f"to classify images: hpsearch predict {shlex.quote(str(folder))} PATH...")
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
