"""Makes the README's pictures from a real run of the default search.

    .venv/bin/python scripts/make_pictures.py

Writes .github/pictures/live-view.svg (the live view in the middle of the search) and
confusion-matrix.png (of the export at its end). Takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from pathlib import Path

import optuna
from rich.console import Console

from hpsearch import StudySpec, export, search
from hpsearch.cli.live import LiveView
from hpsearch.engine.events import EpochFinished, Event

PICTURES = Path(__file__).parent.parent / ".github" / "pictures"
MOMENT = ("cnn-5", 11)  # the trial and epoch at which the picture of the live view is taken


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    PICTURES.mkdir(parents=True, exist_ok=True)
    screen = Console(file=io.StringIO(), force_terminal=True, width=104)
    camera = Console(file=io.StringIO(), force_terminal=True, width=104, record=True)
    with tempfile.TemporaryDirectory() as folder, LiveView(screen) as view:

        def watch(event: Event) -> None:
            view.watch(event)
            if isinstance(event, EpochFinished) and (event.name, event.result.epoch) == MOMENT:
                camera.print(view.render())

        record = search(StudySpec(), runs=Path(folder) / "runs", watch=watch)
        result = export(record.best, Path(folder) / "export")
        shutil.copyfile(result.confusion_png, PICTURES / "confusion-matrix.png")
    svg = camera.export_svg(title="hpsearch search")
    # Fonts from another site would not be loaded in a README: the reader's own serve.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    (PICTURES / "live-view.svg").write_text(svg, encoding="utf-8")
    for path in sorted(PICTURES.iterdir()):
        print(path)


if __name__ == "__main__":
    main()
