"""Makes the README's pictures from a real run of the default search.

    sh scripts/make_pictures.sh

Writes .github/pictures/live-view.svg (the live view in the middle of the search),
confusion-matrix.png (of the export at its end), dashboard-study.png and dashboard-trial.png (pages
of its best family in the dashboard, for which it needs Chromium). Takes about two minutes on two
CPU cores.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
from playwright.sync_api import sync_playwright
from rich.console import Console

from hpsearch import SearchRecord, StudySpec, export, search
from hpsearch.cli.live import LiveView
from hpsearch.dashboard.server import DashboardServer
from hpsearch.engine.events import EpochFinished, Event

PICTURES = Path(__file__).parent.parent / ".github" / "pictures"
MOMENT = ("cnn-5", 11)  # the trial and epoch at which the picture of the live view is taken
BROWSERS = ("chromium", "google-chrome", "chromium-browser")
PAGE = {"x": 0, "y": 0, "width": 1300, "height": 2250}  # of a study: down to the best trial


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no Chromium (Debian: chromium); looked for {', '.join(BROWSERS)}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    screen = Console(file=io.StringIO(), force_terminal=True, width=104)
    camera = Console(file=io.StringIO(), force_terminal=True, width=104, record=True)
    moments: list[Event] = []
    with tempfile.TemporaryDirectory() as folder, LiveView(screen) as view:

        def watch(event: Event) -> None:
            view.watch(event)
            if isinstance(event, EpochFinished) and (event.name, event.result.epoch) == MOMENT:
                moments.append(event)
                camera.print(view.render())

        record = search(StudySpec(), runs=Path(folder) / "runs", watch=watch)
        if not moments:
            trial, epoch = MOMENT
            raise SystemExit(f"there was no epoch {epoch} of {trial}: choose another MOMENT")
        result = export(record.best, Path(folder) / "export")
        shutil.copyfile(result.confusion_png, PICTURES / "confusion-matrix.png")
        picture_dashboard(record, browser)
    svg = camera.export_svg(title="hpsearch search")
    # Fonts from another site would not be loaded in a README: the reader's own serve.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    (PICTURES / "live-view.svg").write_text(svg, encoding="utf-8")
    for path in sorted(PICTURES.iterdir()):
        print(path)


def picture_dashboard(record: SearchRecord, browser: str) -> None:
    """Takes pictures of the pages of the best family's study and of its best trial."""
    with (
        DashboardServer(record.place, port=0) as server,
        serving(server),
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = chromium.new_context(
            viewport={"width": PAGE["width"], "height": PAGE["height"]}, device_scale_factor=0.75
        )
        page = context.new_page()
        page.goto(server.address(server.page.path))
        page.get_by_text("Best Trial (number").wait_for()
        page.wait_for_timeout(3000)  # plots are drawn one after the other
        page.screenshot(path=PICTURES / "dashboard-study.png", clip=PAGE)
        page.set_viewport_size({"width": 1300, "height": 1100})
        page.goto(server.address(f"{server.page.path}/trials?numbers={record.best.number}"))
        page.get_by_text("Configuration").first.wait_for()
        page.screenshot(path=PICTURES / "dashboard-trial.png")
        chromium.close()


@contextlib.contextmanager
def serving(server: DashboardServer) -> Iterator[None]:
    """Has a thread answer requests in the block, however that ends."""
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


if __name__ == "__main__":
    main()
