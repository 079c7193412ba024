"""The report of one model as a page of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpsearch.figures.page import page, picture, safe, table
from hpsearch.results.words import headline, looks, score_rows, validation_text
from hpsearch.training.units import accuracy
from hpsearch.training.words import configuration

_STYLE = ".score { font-size: 2.2rem; font-weight: 650; margin: .6rem 0 0; }"


def bundle_page(metrics: Mapping[str, Any], pictures: Mapping[str, Path], *, title: str) -> str:
    """One page that needs no other file, no network and no script.

    Args:
        metrics: the content of its `metrics.json`.
        pictures: PNG files by what they show, in this order.
        title: such as "digits, cnn-7".
    """
    test, config, data = metrics["test"], metrics["config"], metrics["data"]
    best, images = headline(metrics)
    low, high = best["accuracy_95"]
    counts = ", ".join(
        f"{data['counts'][part]:,} {word}"
        for part, word in (("train", "training"), ("val", "validation"), ("test", "test"))
    )
    classes = [
        (
            safe(name),
            *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")),
            f"{row['support']:,}",
        )
        for name, row in test["classes"].items()
    ]
    validation = ""
    if metrics["validation"]["accuracy"] is not None:
        validation = f" Validation accuracy: {safe(validation_text(metrics))}."
    body = [
        f"<h1>{safe(title)}</h1>",
        f'<p class="soft">{safe(config["family"])}, {metrics["parameters"]:,} parameters; '
        f"{safe(data['name'])}: {counts} images, {len(test['classes'])} classes</p>",
        f'<p class="score">{accuracy(best["accuracy"])}</p>',
        f"<p>of {safe(images)} are right; 95 % interval {accuracy(low)} to {accuracy(high)} "
        f"({safe(best['interval'])}). {looks(metrics['test_split_opened'])}</p>",
        f"<p>{safe(metrics['chosen'])}{validation}</p>",
        *(f"<p>Wrong with the data: {safe(error)}</p>" for error in data["errors"]),
        *(f"<p>Note: {safe(note)}</p>" for note in metrics["notes"]),
        f"<h2>Scores on {'the' if best is test else 'all'} test images</h2>",
        _narrow(("score", "value"), [(safe(name), safe(text)) for name, text in score_rows(test)]),
    ]
    for name, path in pictures.items():
        body.append(f"<h2>{safe(name[:1].upper() + name[1:])}</h2>")
        body.append(picture(path.read_bytes(), alt=name))
    body += [
        "<h2>Classes</h2>",
        table(("class", "precision", "recall", "F1", "test images"), classes, numbers=range(1, 5)),
        "<h2>Configuration</h2>",
        table(
            ("setting", "value"),
            [(safe(name), safe(text)) for name, text in configuration(config)],
        ),
        '<p class="soft">'
        + safe(", ".join(f"{name} {version}" for name, version in metrics["versions"].items()))
        + "</p>",
    ]
    return page(safe(title), body, style=_STYLE)


def _narrow(heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return f'<div class="narrow">{table(heads, rows, numbers=(1,))}</div>'
