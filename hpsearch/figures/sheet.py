"""The result of a data check as one page of HTML, with the suspicious pairs side by side."""

from __future__ import annotations

from hpsearch.data.checks import CheckReport, Finding, Pair
from hpsearch.data.dataset import PART_WORDS, PARTS, ImageDataset
from hpsearch.data.words import plural
from hpsearch.errors import DataError
from hpsearch.figures.page import page, safe, short, table, thumbnail

MOST_PAIRS = 48
"""Pairs of one finding that are shown."""

_STYLE = """
:root { --error: #c62828; --warning: #b26a00; --note: #5f6b7a; }
@media (prefers-color-scheme: dark) {
  :root { --error: #ff7b72; --warning: #e3b341; --note: #9aa5b1; } }
td:first-child { white-space: nowrap; } td:nth-child(2) { width: 25%; }
.error, .warning, .note { font-weight: 600; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(18.5rem, 1fr));
  gap: .8rem; margin-top: .6rem; }
.pair { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem;
  background: var(--soft); }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
img, .sealed { display: block; height: 8rem; max-width: 100%; object-fit: contain;
  object-position: left; }
img { image-rendering: pixelated; }
.sealed { width: 8rem; background: #808080; color: #fff; font-size: .8rem; padding: .6rem; }
.sealed code { white-space: nowrap; }
.name { opacity: .75; }
"""


def check_sheet(report: CheckReport, dataset: ImageDataset, *, show_test: bool = False) -> str:
    """One page that needs no other file, no network and no script.

    Args:
        report: of `dataset`.
        show_test: show test images; else a gray box stands for each.

    Raises:
        DataError: the report is about other data.
    """
    if report.data != dataset.fingerprint:
        raise DataError(f"the report is not about {dataset.name}: check the data again")
    title = f"Data check of {short(dataset.name)}"
    pairs = [_pairs(finding, dataset, show_test) for finding in report.findings if finding.pairs]
    return page(
        title,
        [
            f"<h1>{title}</h1>",
            f'<p class="soft">{_counts(report)}</p>',
            f"<p>{_verdict(report)}</p>",
            _findings(report),
            _shifts(report),
            *pairs,
        ],
        style=_STYLE,
    )


def _counts(report: CheckReport) -> str:
    counts = dict(report.counts)
    images, classes = counts.pop("images", 0), counts.pop("classes", 0)
    parts = [f"{count:,} {safe(PART_WORDS.get(part, part))}" for part, count in counts.items()]
    split = f" ({', '.join(parts)})" if parts else ", no split"
    return f"{images:,} images, {classes:,} classes{split}"


def _verdict(report: CheckReport) -> str:
    errors = sum(finding.severity == "error" for finding in report.findings)
    if errors:
        return f'<span class="error">{plural(errors, "finding")} would make results wrong.</span>'
    if report.findings:
        return "Nothing was found that would surely make results wrong."
    return "Nothing odd was found."


def _findings(report: CheckReport) -> str:
    if not report.findings:
        return ""
    rows = [
        (_severity(finding), safe(finding.kind), safe(finding.message))
        for finding in report.findings
    ]
    return table(("", "finding", "what it is"), rows)


def _severity(finding: Finding) -> str:
    return f'<span class="{finding.severity}">{finding.severity}</span>'


def _shifts(report: CheckReport) -> str:
    if not report.shifts:
        return ""
    rows = [
        (
            f"{safe(shift.first)} and {safe(shift.second)}",
            f"AUC {shift.auc:.2f} ± {shift.error:.2f}",
            safe(", ".join(shift.words)) or "–",
        )
        for shift in report.shifts
    ]
    heads = ("images", "told apart by a simple classifier (0.5: not at all)", "the second ones are")
    columns = 3 if any(shift.words for shift in report.shifts) else 2
    return table(heads[:columns], [row[:columns] for row in rows])


def _pairs(finding: Finding, dataset: ImageDataset, show_test: bool) -> str:
    shown = finding.pairs[:MOST_PAIRS]
    cut = ""
    if len(shown) < len(finding.pairs):
        cut = f'<p class="soft">Only the first {len(shown)} pairs are shown.</p>'
    cards = "\n".join(_pair(pair, dataset, show_test) for pair in shown)
    return (
        f"<h2>{_severity(finding)} {safe(finding.kind)}</h2>\n<p>{safe(finding.message)}</p>\n{cut}"
        f'<div class="pairs">\n{cards}\n</div>'
    )


def _pair(pair: Pair, dataset: ImageDataset, show_test: bool) -> str:
    alike = "exact copies" if pair.likeness >= 1.0 else f"likeness {pair.likeness:.3f}"
    mirrored = ", mirrored" if pair.mirrored else ""
    images = "".join(
        _image(row, part, dataset, show_test)
        for row, part in zip((pair.first, pair.second), pair.parts, strict=True)
    )
    return (
        f'<div class="pair"><div class="two">{images}</div>'
        f'<p class="soft">{alike}{mirrored}</p></div>'
    )


def _image(row: int, part: str, dataset: ImageDataset, show_test: bool) -> str:
    # Where the data could not be split, its official test images are sealed all the same.
    official = dataset.official is not None and dataset.official[row] == PARTS.index("test")
    if (part == "test" or official) and not show_test:
        picture = '<div class="sealed">test image; <code>--show-test</code> shows it</div>'
    else:
        picture = thumbnail(dataset.images[row])
    name = str(row) if dataset.names is None else dataset.names[row]
    where = f" · {PART_WORDS[part]}" if part in PART_WORDS else ""
    return (
        f"<figure>{picture}<figcaption><b>{short(dataset.classes[dataset.labels[row]])}</b>{where}"
        f'<br><span class="name">{short(name)}</span></figcaption></figure>'
    )
