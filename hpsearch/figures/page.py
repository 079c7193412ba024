"""Pages of HTML that need no other file and no network: what reports of all kinds share.

Texts from outside go through `safe` or `short`; everything else here takes HTML.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Collection, Iterable, Sequence

from matplotlib.figure import Figure
from PIL import Image

from hpsearch.data.dataset import UInt8Array
from hpsearch.figures._canvas import cut
from hpsearch.figures.png import png_of
from hpsearch.names import printable

_LONGEST = 120
_SIDE = 128

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 75rem;
  padding: 1.5rem; overflow-wrap: anywhere; background: Canvas; color: CanvasText; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
p { margin: .3rem 0; } .soft { opacity: .75; }
table { border-collapse: collapse; width: 100%; margin-top: 1rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; overflow-wrap: normal; }
.wide td { white-space: nowrap; } .wide th { vertical-align: bottom; }
.narrow table { width: auto; }
img.figure { display: block; max-width: 100%; height: auto; margin: .6rem 0; background: #fff;
  border-radius: .3rem; }
figure { margin: 0; } figcaption { font-size: .8rem; margin-top: .3rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; border-radius: .3rem; }
"""


def page(title: str, body: Iterable[str], *, style: str = "", scripts: bool = False) -> str:
    """A whole page.

    Args:
        title: as HTML.
        body: parts of the page, as HTML.
        style: CSS beside what all pages have.
        scripts: let scripts run that are in `body`, such as those of interactive figures; where
            there are none, nothing that a name smuggles in could run anything.
    """
    allowed = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'"
    if scripts:
        allowed += "; script-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{allowed}">',
            f"<title>{title}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def safe(text: str) -> str:
    """Text from outside, as text and nothing else."""
    return html.escape(printable(text), quote=True)


def short(name: str) -> str:
    """A name from outside that may be very long."""
    return safe(cut(name, _LONGEST))


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()
) -> str:
    """A table.

    Args:
        heads: of the columns, as HTML.
        rows: their cells, as HTML.
        numbers: which columns hold numbers, which are set to the right.
    """

    def line(tag: str, values: Sequence[str]) -> str:
        opening = [f'{tag} class="number"' if n in numbers else tag for n in range(len(values))]
        cells = zip(opening, values, strict=True)
        return f"<tr>{''.join(f'<{first}>{value}</{tag}>' for first, value in cells)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    head = line("th", heads)
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def drawing(figure: Figure, *, alt: str, dots: int = 110) -> str:
    """A figure as part of the page.

    Args:
        alt: what it shows, in words, as text.
        dots: an inch.
    """
    return picture(png_of(figure, dots=dots), alt=alt)


def picture(png: bytes, *, alt: str) -> str:
    """A PNG as part of the page; see `drawing`."""
    text = base64.b64encode(png).decode("ascii")
    return f'<img class="figure" alt="{safe(alt)}" src="data:image/png;base64,{text}">'


def thumbnail(image: UInt8Array) -> str:
    """An image of a data set, uint8 (height, width, channels): small ones keep their pixels as
    squares, large ones are made smaller.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    longest = max(picture.size)
    if longest < _SIDE:
        factor = _SIDE // longest
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    elif longest > 2 * _SIDE:
        picture.thumbnail((2 * _SIDE, 2 * _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/png;base64,{text}">'
