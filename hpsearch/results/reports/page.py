"""The report of searches as one page of HTML, which needs no other file and no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from hpsearch.engine.records import SearchRecord
from hpsearch.errors import SearchError
from hpsearch.figures.page import page, safe, short, table
from hpsearch.files import write_text
from hpsearch.results.folder import writing
from hpsearch.results.reports.cells import fixed, of_test, time_text, varied_text, whole
from hpsearch.results.reports.document import BEST, distinct, report_document
from hpsearch.results.reports.pair import best_pair, pair_section
from hpsearch.results.reports.search import search_section
from hpsearch.training.objectives import DEFAULT_OBJECTIVE, objective_info
from hpsearch.training.units import accuracy, objective_value, scaled

_STYLE = """
h3 { font-size: .95rem; margin: 1.4rem 0 .2rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; }
.facts td:first-child { white-space: nowrap; padding-right: 2rem; opacity: .75; width: 1%; }
.plot { background: #fff; border-radius: .3rem; margin: .4rem 0; }
.best td:last-child, .one td:nth-child(2), .several td:nth-child(3) { white-space: normal;
  min-width: 22rem; }
nav a { margin-right: 1rem; color: inherit; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
"""

# A figure is drawn when it comes near: many of them at once would take seconds.
_DRAW = """
const draw = box => {
  const figure = JSON.parse(box.nextElementSibling.textContent);
  Plotly.newPlot(box, figure.data, figure.layout, {displaylogo: false, responsive: true,
    modeBarButtonsToRemove: ["sendDataToCloud", "sendChartToCloud", "lasso2d", "select2d"]});
};
const boxes = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) {
    watcher.unobserve(entry.target);
    draw(entry.target);
  }
}, {rootMargin: "800px"});
boxes.forEach(box => watcher.observe(box));
addEventListener("beforeprint", () => boxes.forEach(box => {
  if (!box.firstChild) { watcher.unobserve(box); draw(box); }
}));
"""


def write_report(
    records: SearchRecord | Sequence[SearchRecord],
    out: str | Path,
    *,
    best: int = BEST,
    document: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the page to the file `out`, whole or not at all; a page that is there is replaced.

    Args:
        records: searches that lie in their storage still: Optuna's figures are made from there.
        best: how many of the best trials of each search to list.
        document: of the same searches, with as many trials, where it was made already (see
            `hpsearch.results.reports.document.report_document`).

    Raises:
        SearchError: `out` is no file of HTML by its name, or cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm"):
        is_table = out.suffix.lower() == ".csv"
        hint = f"; for a table of all trials use --csv > {out.name}" if is_table else ""
        raise SearchError(
            f"-o names the page to write, such as report.html, but got {str(out)!r}{hint}"
        )
    if out.is_dir():
        raise SearchError(f"{out} is a folder; name a file to write the page to with -o")
    text = report_page(records, best=best, document=document)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    return out


def report_page(
    records: SearchRecord | Sequence[SearchRecord],
    *,
    best: int = BEST,
    document: Mapping[str, Any] | None = None,
) -> str:
    """The page: the leaderboard, what was varied, the best two on the same test images, and a
    section for each search. See `write_report`.

    Raises:
        SearchError: the storage cannot be read.
    """
    records = distinct(records)
    document = document or report_document(records, best=best)
    title = f"Report of {short(', '.join(record.name for record in records))}"
    sections = [
        search_section(record, found, anchor=f"search-{number}")
        for number, (record, found) in enumerate(zip(records, document["searches"], strict=True))
    ]
    interactive = any(section.is_interactive for section in sections)
    comparable = len({_images(record) for record in records}) == 1
    pair = best_pair(document["leaderboard"]) if comparable else None
    body = [
        f"<h1>{title}</h1>",
        *_links(records),
        *_leaderboard(document),
        *_varied(document),
        *(pair_section(pair) if pair else ()),
        *(section.html for section in sections),
    ]
    if interactive:
        # The tables can be read while the scripts load.
        body += [f"<script>{get_plotlyjs()}</script>", f"<script>{_DRAW}</script>"]
    return page(title, body, style=_STYLE, scripts=interactive)


def _images(record: SearchRecord) -> tuple[str, str]:
    """Searches where it is the same have the same test images."""
    return record.fingerprints["data"], record.fingerprints["split"]


def _links(records: Sequence[SearchRecord]) -> Iterator[str]:
    if len(records) > 1:
        links = (f'<a href="#search-{n}">{short(r.name)}</a>' for n, r in enumerate(records))
        yield f'<nav class="soft">{"".join(links)}</nav>'


def _leaderboard(document: Mapping[str, Any]) -> Iterator[str]:
    several = len(document["searches"]) > 1
    others = any(row["objective"] != DEFAULT_OBJECTIVE for row in document["leaderboard"])
    heads = [
        *(["search"] if several else []),
        *("family", "best trial"),
        *(["objective"] if others else []),
        *("val. acc.", "val. loss", "test acc. (95 %)", "test opened"),
        *("trials", "epochs", "time", "parameters", "MACs", "images/s"),
    ]
    rows = []
    for row in document["leaderboard"]:
        objective = objective_info(row["objective"])
        rows.append(
            [
                *([short(row["search"])] if several else []),
                *(short(row["family"]), short(row["trial"] or "–")),
                *(
                    [safe(_named_value(objective.short, row)) if row["trial"] else "–"]
                    if others
                    else []
                ),
                accuracy(row["val_accuracy"]),
                fixed(row["val_loss"]),
                _in_two_lines(of_test(row["test"])),
                whole(row["test_openings"]),
                whole(row["trials"]),
                whole(row["epochs"]),
                time_text(row["seconds"]),
                whole(row["parameters"]),
                "–" if row["macs"] is None else scaled(row["macs"]),
                whole(row["images_per_second"]),
            ]
        )
    yield "<h2>Leaderboard</h2>"
    if document["not_ranked"]:
        yield f"<p>{safe(document['not_ranked'])}</p>"
    numbers = range(heads.index("best trial") + 1, len(heads))
    yield f'<div class="wide">{table(heads, rows, numbers=numbers)}</div>'
    yield (
        '<p class="soft">Trials are chosen by the validation images alone; only what was exported '
        "or retrained has a test score, with its 95 % interval or, over several seeds, the "
        "standard deviation; N new: without the test images that the weights had seen which it "
        "started from. Trials, epochs and time are all of the family; MACs are the "
        "multiplications of one image's forward pass; how often the test split was opened is "
        "counted for the search.</p>"
    )


def _named_value(name: str, row: Mapping[str, Any]) -> str:
    return f"{name} {objective_value(objective_info(row['objective']), row['value'])}"


def _in_two_lines(text: str) -> str:
    """An accuracy, and below it how sure it is: the table has many columns."""
    return safe(text).replace(" (", "<br>(", 1)


def _varied(document: Mapping[str, Any]) -> Iterator[str]:
    several = len(document["searches"]) > 1
    heads = [
        *(["search"] if several else []),
        *("family", "varied", "best trial", "train loss", "val. loss"),
        *("train acc.", "val. acc.", "test acc."),
    ]
    rows = [
        [
            *([short(row["search"])] if several else []),
            short(row["family"]),
            safe(varied_text(row["varied"])) or "nothing",
            short(row["trial"] or "–"),
            fixed(row["train_loss"]),
            fixed(row["val_loss"]),
            accuracy(row["train_accuracy"]),
            accuracy(row["val_accuracy"]),
            _in_two_lines(of_test(row["test"], short=True)),
        ]
        for row in document["varied"]
    ]
    first = heads.index("train loss")
    yield "<h2>What was varied, and what came of it</h2>"
    shown = table(heads, rows, numbers=range(first, len(heads)))
    yield f'<div class="wide {"several" if several else "one"}">{shown}</div>'
    yield (
        '<p class="soft">The values are those that were tried. Losses and accuracies are those of '
        "the best trial's best epoch; of the training they are measured on augmented images, with "
        "dropout on, while the weights change.</p>"
    )
