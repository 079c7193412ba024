"""The report as a page: what is on it, and that nothing from outside runs or is fetched there."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from hpsearch import SearchRecord, StudySpec, load_search, search
from hpsearch.engine.database import open_storage
from hpsearch.engine.ledger import record_opening, record_result
from hpsearch.engine.place import study_name
from hpsearch.errors import SearchError
from hpsearch.results.folder import METRICS, PREDICTIONS
from hpsearch.results.reports.document import report_document
from hpsearch.results.reports.interactive import interactive
from hpsearch.results.reports.page import report_page, write_report
from hpsearch.results.reports.pair import best_pair
from hpsearch.results.reports.plots import family_studies
from hpsearch.results.reports.search import search_section
from hpsearch.results.tables import write_table

NASTY = "<script>alert(1)</script>"
CHOICES = ("</script><img src=x onerror=alert(2)>", "$x$ \u202e & <b>")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """A search of two families."""
    spec = StudySpec(
        families=("logistic", "mlp"), trials=6, epochs=2, precision="fp32", artifacts="none"
    )
    return search(spec, runs=tmp_path_factory.mktemp("runs"), device="cpu", workers=0)


@pytest.fixture(scope="module")
def html(made: SearchRecord) -> str:
    """Its page."""
    return report_page(made)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """A search of one trial."""
    spec = StudySpec(families=("logistic",), trials=1, epochs=1, precision="fp32", artifacts="none")
    return search(spec, runs=tmp_path_factory.mktemp("small"), device="cpu", workers=0)


@pytest.fixture
def found(made: SearchRecord, tmp_path: Path) -> SearchRecord:
    """The search in a folder of its own, which a test may change."""
    shutil.copytree(made.runs, tmp_path / "runs")
    return load_search(tmp_path / "runs")


class Page(HTMLParser):
    """The texts of a page, and what it loads or runs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.heads: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self.alts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [found[key] or "" for key in ("src", "href") if key in found]
        self.alts += [found["alt"] or ""] if tag == "img" else []
        assert not [key for key in found if key.startswith("on")]
        self._inside = "json" if found.get("type") == "application/json" else tag

    def handle_data(self, data: str) -> None:
        if self._inside == "json":
            self.figures.append(json.loads(data))
        if self._inside in ("h1", "h2", "h3") and data.strip():
            self.heads.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def texts(part: Any) -> list[str]:
    """All texts in a document."""
    if isinstance(part, dict):
        return [text for value in part.values() for text in texts(value)]
    if isinstance(part, list):
        return [text for value in part for text in texts(value)]
    return [part] if isinstance(part, str) else []


def study_of(record: SearchRecord, family: str) -> optuna.Study:
    return optuna.load_study(
        study_name=study_name(record.name, family), storage=open_storage(record.place, write=True)
    )


def test_the_page_has_all_parts_and_loads_nothing(html: str) -> None:
    page = Page(html)
    assert page.heads[0] == "Report of digits"
    for head in (
        "Leaderboard",
        "What was varied, and what came of it",
        "Best trials",
        "Time by family",
        "Learning curves of all trials",
        "digits: logistic",
        "digits: mlp",
    ):
        assert page.heads.count(head) == 1, head
    for head in (
        "Optimisation history",
        "Parameter importance",
        "Slices",
        "Parallel coordinates",
        "One parameter at a time",
    ):
        assert page.heads.count(head) == 2, head
    assert "Pareto front" not in page.heads
    assert [a for a in page.addresses if not a.startswith("data:image/png;base64,")] == []
    assert page.tags.count("script") == len(page.figures) + 2  # plotly.js, and what calls it
    assert "link" not in page.tags
    assert "iframe" not in page.tags
    kinds = [{trace["type"] for trace in figure["data"]} for figure in page.figures]
    assert {"bar"} in kinds
    assert page.alts[0].startswith("learning curves of all trials")
    assert len(page.alts) == 1 + 2  # and one parameter at a time, of each family


def test_names_from_outside_are_text(found: SearchRecord) -> None:
    study = study_of(found, "logistic")
    kinds = {NASTY: CategoricalDistribution(CHOICES), "lr": FloatDistribution(1e-9, 10, log=True)}
    like = next(t for t in study.trials if t.state is TrialState.COMPLETE)
    for number, choice in enumerate(CHOICES * 2):
        study.add_trial(
            optuna.create_trial(
                value=0.9 + number / 100,
                params={NASTY: choice, "lr": 10.0**-number},
                distributions=kinds,
                user_attrs={**like.user_attrs, "note": NASTY, "value": 0.9 + number / 100},
                intermediate_values={0: 0.5, 1: 0.9},
            )
        )
    study.set_user_attr("data", {**found.data, "name": NASTY, "notes": [NASTY]})
    html = report_page(load_search(found.runs))
    outside = html.replace(html[html.index("<script>/**") :], "")
    page = Page(outside)
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    shown = texts(page.figures)
    # Plotly takes some tags in a text for markup: here it is shown as it is.
    assert any("&lt;script>alert(1)&lt;/script>" in text for text in shown)
    assert not [text for text in shown if re.search(r"<(?!br>|/?extra>)", text)]


def test_without_a_complete_trial_it_says_so_and_has_no_scripts(tmp_path: Path) -> None:
    wild = {"optimizer": "sgd", "lr": 0.5, "momentum": 0.99, "batch_norm": "no", "layers": 4}
    spec = StudySpec(
        artifacts="none",
        families=("mlp",),
        trials=1,
        epochs=2,
        overrides={**wild, "batch_size": 16, "width": 512},
    )
    record = search(spec, runs=tmp_path, device="cpu", workers=0)
    assert record.ranked() == []
    html = report_page(record)
    page = Page(html)
    assert "script" not in page.tags
    assert "script-src" not in html
    assert "No trial is complete yet." in html
    assert "Which parameters matter cannot be said" in html
    assert "mlp-0: the loss is not finite" in html
    assert page.heads.count("Failed") == 1


def test_of_one_complete_trial_no_importance_is_shown(small: SearchRecord) -> None:
    html = report_page(small)
    page = Page(html)
    assert "Optimisation history" in page.heads
    assert {"Parameter importance", "Slices", "Parallel coordinates"}.isdisjoint(page.heads)
    assert "Which parameters matter cannot be said: it takes 3 complete trials" in html
    assert len(page.figures) == 1
    assert "No trial is complete" not in report_page(small, best=0)


def test_the_split_is_told_as_it_is(small: SearchRecord) -> None:
    """Of data with an official split the shares that were asked for say nothing."""
    (document,) = report_document(small)["searches"]
    assert "20 % validation, 20 % test" in search_section(small, document, anchor="x").html
    document["data"]["counts"] = {"train": 60, "val": 30, "test": 10}
    assert "30 % validation, 10 % test" in search_section(small, document, anchor="x").html


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    spec = StudySpec(
        artifacts="none",
        families=("logistic", "mlp"),
        trials=4,
        epochs=1,
        objective="val_loss,params,macs",
    )
    record = search(spec, runs=tmp_path, device="cpu", workers=0)
    page = Page(report_page(record))
    assert page.heads.count("Pareto front") == 1 + 2  # of all families, and Optuna's of each
    assert page.alts.count("Pareto front") == 1
    # The better ones, of the lower loss, stand for themselves: nothing is turned round.
    assert "Pareto Rank" in texts(page.figures)


def test_importance_is_that_for_good_values(small: SearchRecord, tmp_path: Path) -> None:
    """Optuna's is for low values, whatever the direction: accuracies must be turned round."""
    shutil.copytree(small.runs, tmp_path / "runs")
    record = load_search(tmp_path / "runs")
    study = study_of(record, "logistic")
    (like,) = study.trials
    unit = FloatDistribution(0.0, 1.0)
    random = np.random.default_rng(0)
    for _ in range(80):
        good, bad = random.uniform(size=2)
        # The best tenth is where `good` is high; the worst tenth is where `bad` is high.
        value = 0.6 + 0.3 * good**6 - 0.5 * bad**6
        study.add_trial(
            optuna.create_trial(
                value=value,
                params={"good": good, "bad": bad},
                distributions={"good": unit, "bad": unit},
                user_attrs={**like.user_attrs, "value": value},
            )
        )
    record = load_search(tmp_path / "runs")
    (family,) = family_studies(record)
    assert family.importances["good"] > family.importances["bad"]
    assert family.parameters[0] == "good"
    assert sum(family.importances.values()) == pytest.approx(1)
    bars = next(plot for plot in interactive(family, record) if plot.title.endswith("importance"))
    names, shares = (json.loads(bars.figure)["data"][0][axis] for axis in "yx")
    assert names[int(np.argmax(shares))] == "good"


class TestBestPair:
    TRUE = ("a", "b", "a", "b", "a", "b", "a", "b", "a", "b")

    def export(self, record: SearchRecord, trial: str, folder: Path, errors: int) -> None:
        """A folder as an export leaves it, as far as the report reads it."""
        folder.mkdir()
        wrong = {"a": "b", "b": "a"}
        predicted = [wrong[t] if n < errors else t for n, t in enumerate(self.TRUE)]
        heads = ["image", "true", "predicted", "confidence", "p a", "p b"]
        rows = [
            [f"{n}.png", true, guess, 0.75, *((0.75, 0.25) if guess == "a" else (0.25, 0.75))]
            for n, (true, guess) in enumerate(zip(self.TRUE, predicted, strict=True))
        ]
        write_table(folder / PREDICTIONS, heads, rows)
        accuracy = 1 - errors / 10
        metrics = {"search": record.name, "trial": trial, "test": {"accuracy": accuracy}}
        (folder / METRICS).write_text(json.dumps(metrics))
        record_opening(record.trial(trial), "export")
        record_result(
            record.trial(trial),
            kind="export",
            folder=str(folder),
            accuracy=accuracy,
            details={"accuracy_95": [0.1, 0.9]},
        )

    def test_they_are_compared_on_the_same_images(
        self, found: SearchRecord, tmp_path: Path
    ) -> None:
        leaders = [found.leader(family) for family in found.families]
        first, second = sorted(filter(None, leaders), key=lambda t: t.key, reverse=True)
        self.export(found, first.name, tmp_path / "one", 4)
        record = load_search(found.runs)
        assert best_pair(report_document(record)["leaderboard"]) is None  # one only
        self.export(found, second.name, tmp_path / "two", 1)
        record = load_search(found.runs)
        pair = best_pair(report_document(record)["leaderboard"])
        assert pair is not None
        # In the order of the validation, though the test says otherwise.
        assert pair.first == f"digits {first.name}"
        assert (pair.comparison.first_accuracy, pair.comparison.second_accuracy) == (0.6, 0.9)
        assert pair.comparison.only_second_right == 3
        html = report_page(record)
        assert "The best two on the same test images" in Page(html).heads
        assert pair.comparison.conclusion.split("(")[0].strip() in html
        assert "60.00 % (10.0 to 90.0)" in html
        assert "opened 2 times" in html
        # The first was exported again: both results are there, and in which order.
        self.export(found, first.name, tmp_path / "<three>", 3)
        record = load_search(found.runs)
        html = report_page(record)
        assert "Test results, the newest last" in Page(html).heads
        looks = re.findall(r"<td>(\d\d\.\d\d) % \(10.0 to 90.0\)</td><td>(\d of 3)</td>", html)
        assert looks == [("60.00", "1 of 3"), ("90.00", "2 of 3"), ("70.00", "3 of 3")]
        assert f"{tmp_path}/&lt;three&gt;" in html
        assert f"opened 3 times, for {first.name} (2 times), {second.name}. " in html
        other = dataclasses.replace(record, name="other", results=())
        (document,) = report_document(other, best=0)["searches"]
        section = search_section(record, document, anchor="x").html
        assert f"for {first.name} of digits (2 times), {second.name} of digits. " in section

    def test_an_export_that_is_gone_or_was_replaced_is_passed_over(
        self, found: SearchRecord, tmp_path: Path
    ) -> None:
        names = [leader.name for family in found.families if (leader := found.leader(family))]
        for name, errors in zip(names, (1, 2), strict=True):
            self.export(found, name, tmp_path / name, errors)
        rows = report_document(load_search(found.runs))["leaderboard"]
        assert best_pair(rows) is not None
        metrics = tmp_path / names[0] / METRICS
        whole = metrics.read_text()
        for text in (whole.replace(names[0], "cnn-7"), whole.replace("0.9", "0.8"), "{", "[]"):
            metrics.write_text(text)
            assert best_pair(rows) is None
        metrics.write_text(whole)
        assert best_pair(rows) is not None
        (tmp_path / names[0] / PREDICTIONS).unlink()
        assert best_pair(rows) is None


class TestTheFile:
    def test_it_is_written_whole_and_replaced(self, small: SearchRecord, tmp_path: Path) -> None:
        out = tmp_path / "new" / "folder" / "report.html"
        assert write_report(small, out) == out
        first = out.read_text(encoding="utf-8")
        assert first.startswith("<!doctype html>")
        assert first.endswith("</html>\n")
        out.write_text("something else")
        write_report([small, small], out, document=report_document(small))
        assert out.read_text(encoding="utf-8") == first
        assert [path.name for path in out.parent.iterdir()] == ["report.html"]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("folder.html", "is a folder"),
            ("hpsearch.db", "such as report.html"),
            ("report", "such as report.html"),
            ("file/report.html", "cannot be written"),
        ],
    )
    def test_a_place_that_is_none_is_refused(
        self, small: SearchRecord, tmp_path: Path, name: str, words: str
    ) -> None:
        (tmp_path / "folder.html").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "hpsearch.db").write_text("a database")
        with pytest.raises(SearchError, match=words):
            write_report(small, tmp_path / name)
        assert (tmp_path / "hpsearch.db").read_text() == "a database"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_all_figures_and_complains_of_nothing(html: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--window-size=1200,12000", "--virtual-time-budget=20000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    count = len(Page(html).figures)
    assert count >= 8
    assert done.stdout.count('class="plot-container plotly"') == count
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in complaints if re.search("(?i)refused|violates|error", line)]
