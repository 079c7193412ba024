"""The dashboard in a real browser: what is seen, and what hostile names and pages can do."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from searches_by_hand import FILES, MARKUP, SCRIPT, add_trial, make_search
from test_dashboard_server import serving

from hpsearch.dashboard.server import DashboardServer
from hpsearch.engine.place import Place

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EVIL = "evil.example"
WATCH = "addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.blockedURI))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which a stranger's name leads to this machine, too."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A search whose names are hostile."""
    place = Place.of(tmp_path_factory.mktemp("browser") / "runs")
    make_search(place)
    return place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[DashboardServer]:
    with serving(place) as server:
        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page, whose console must stay free of errors."""
    context = browser.new_context(viewport={"width": 1400, "height": 1400})
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [text for text in complaints if "status of 4" not in text] == []


def points(page: Page) -> int:
    """How many points are drawn in the plot of the history."""
    page.wait_for_selector(".js-plotly-plot .scatterlayer .point")
    return len(page.query_selector_all(".js-plotly-plot >> nth=0 >> .scatterlayer .point"))


def test_from_the_list_to_the_history_of_a_study(server: DashboardServer, page: Page) -> None:
    page.goto(server.address())
    page.get_by_text("digits/logistic").wait_for()
    page.get_by_text("digits/mlp").click()
    page.wait_for_url("**/dashboard/studies/2")
    assert points(page) >= 3
    page.get_by_text("Best Trial (number=2)").wait_for()
    page.get_by_text("0.62", exact=True).first.wait_for()
    page.get_by_text("Hyperparameter Importance").first.wait_for()


@pytest.mark.parametrize("part", ["analytics", "smartSelection"])
def test_its_other_plots_are_drawn_under_the_policy(
    server: DashboardServer, page: Page, part: str
) -> None:
    page.goto(server.address(f"/dashboard/studies/2/{part}"))
    page.wait_for_selector(".js-plotly-plot .main-svg")
    if part == "smartSelection":  # which is drawn by code that is made in the browser
        page.wait_for_selector(".parcoords-line-layers canvas, .parcoords .y-axis")


def test_a_trial_with_its_picture_and_names_that_would_be_scripts(
    server: DashboardServer, page: Page
) -> None:
    page.goto(server.address("/dashboard/studies/2/trials?numbers=2"))
    picture = page.locator("img[alt='learning_curves.png']")
    picture.first.wait_for()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 120)")
    page.get_by_text(MARKUP).first.wait_for()
    page.get_by_text(SCRIPT).first.wait_for()
    assert page.title() == "Optuna Dashboard"
    assert page.locator("main script, img[src='x']").count() == 0


def test_a_studys_note_is_text(server: DashboardServer, page: Page) -> None:
    page.goto(server.address("/dashboard/studies/2/note"))
    page.get_by_text(MARKUP).first.wait_for()
    assert page.title() == "Optuna Dashboard"


def test_a_table_is_shown_as_one(server: DashboardServer, page: Page) -> None:
    page.goto(server.address("/dashboard/studies/2/trials?numbers=2"))
    page.get_by_text("history.csv").first.wait_for()
    card = page.locator("div.MuiCard-root, div.MuiPaper-root").filter(has_text="history.csv").last
    card.get_by_role("button").first.click()
    page.get_by_role("cell", name="0.25").wait_for()


def test_a_page_among_the_artifacts_is_saved_and_never_opened(
    server: DashboardServer, place: Place, page: Page
) -> None:
    study = make_search(place, "pages", families=("mlp",))["mlp"]
    ids = add_trial(place, study, 0.9)
    trial = study.get_trials()[-1]
    page.goto(server.address())
    for name in ("page.html", "drawing.svg"):
        path = f"/artifacts/{study._study_id}/{trial._trial_id}/{ids[name]}"
        with page.expect_download() as download:
            page.evaluate("path => { location.href = path }", path)
        assert download.value.suggested_filename == name
        assert download.value.path().read_bytes() == FILES[name]
    assert page.title() == "Optuna Dashboard"


def test_a_strangers_name_for_this_machine_is_refused(server: DashboardServer, page: Page) -> None:
    for path in ("/", "/api/studies", "/static/bundle.js"):
        answer = page.goto(f"http://{EVIL}:{server.port}{path}")
        assert answer is not None
        assert answer.status == 421
    assert "--allow-host" in page.inner_text("body")
    assert "digits" not in page.content()


def test_the_page_itself_can_change_nothing_unless_allowed(
    server: DashboardServer, page: Page
) -> None:
    page.goto(server.address("/dashboard/studies/2/note"))
    page.get_by_text(MARKUP).first.wait_for()
    answer = page.evaluate(
        "async () => { const a = await fetch('/api/studies/2', {method: 'DELETE', body: '{}'});"
        " return [a.status, (await a.json()).reason] }"
    )
    assert answer[0] == 403
    assert "--allow-write" in answer[1]


CHANGING = (
    ("", "[data-testid=AddBoxIcon]"),
    ("", '[aria-label="delete study"]'),
    ("", '[aria-label="rename study"]'),
    ("/studies/2/note", "[data-testid=EditIcon]"),
    ("/studies/2", "[data-testid=UploadFileIcon]"),
)


@pytest.mark.parametrize("writable", [False, True])
def test_there_are_buttons_only_for_what_is_allowed(
    place: Place, page: Page, writable: bool
) -> None:
    with serving(place, writable=writable) as server:
        for path, button in CHANGING:
            page.goto(server.address(f"/dashboard{path}"))
            found = page.locator(button).first
            found.wait_for(state="attached")
            assert found.is_visible() == writable, button
        assert page.get_by_text("Study Artifacts").is_visible()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[int]:
    """The port of another site."""
    (tmp_path / "index.html").write_text("<p>a page of theirs")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_another_sites_page_can_change_nothing_even_then(
    place: Place, page: Page, elsewhere: int
) -> None:
    with serving(place, writable=True) as server:
        target = f"http://127.0.0.1:{server.port}/incompatible-rdb-schema"
        form = f"<form method=post action={target}><button>You have won</button></form>"
        page.goto(f"http://{EVIL}:{elsewhere}/")
        page.set_content(form)
        page.get_by_text("You have won").click()
        page.get_by_text("only the dashboard's own pages may change something").wait_for()
        page.goto(server.address())
        page.get_by_text("digits/mlp").wait_for()
        made = page.evaluate(
            "body => fetch('/api/studies', {method: 'POST', body, headers: {'Content-Type': "
            "'application/json'}}).then(answer => answer.status)",
            json.dumps({"study_name": "a new study", "directions": ["minimize"]}),
        )
        assert made == 201
        page.reload()
        page.get_by_text("a new study").wait_for()


def test_with_a_token_the_printed_address_opens_it_and_no_other(
    place: Place, page: Page, browser: Browser
) -> None:
    with serving(place, token="a word that is long") as server:
        page.goto(server.address())
        page.get_by_text("digits/mlp").click()
        assert points(page) >= 3
        assert "token" not in page.url
        page.goto(server.address("/dashboard/studies/2/trials"))
        page.wait_for_function("[...document.images].some(image => image.naturalWidth === 120)")
        stranger = browser.new_page()
        answer = stranger.goto(f"http://127.0.0.1:{server.port}/dashboard")
        assert answer is not None
        assert answer.status == 401
        assert "whole address" in stranger.inner_text("body")
        stranger.close()
