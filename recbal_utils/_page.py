"""Sections of words, tables, figures and code; shown in a notebook, or as one page of HTML.

Everything that comes from a file is escaped, nothing is loaded from elsewhere, and the page has
no script.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from recbal_utils import plots

MAX_LETTERS, MAX_SENTENCE = 300, 2_000  # letters of a name or value, and of a sentence of ours


def plain(value, length=MAX_LETTERS) -> str:
    """Text on one line: control characters, also those that turn the reading direction, shown."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def escaped(value) -> str:
    """Text as HTML shows it letter by letter."""
    return html.escape(plain(value))


@dataclass(frozen=True)
class Words:
    """A paragraph; `strong` for the one that matters."""

    text: str
    strong: bool = False

    def html(self) -> str:
        kind = ' class="strong"' if self.strong else ""
        return f"<p{kind}>{html.escape(plain(self.text, MAX_SENTENCE))}</p>"


@dataclass(frozen=True)
class Grid:
    """A table; the first column names its rows. `numbers` are columns aligned to the right."""

    frame: pd.DataFrame
    caption: str
    numbers: Sequence[str] = ()

    def html(self) -> str:
        head = "".join(
            f'<th scope="col"{self._side(name)}>{escaped(name)}</th>' for name in self.frame.columns
        )
        body = "".join(self._row(row) for row in self.frame.itertuples(index=False, name=None))
        name = escaped(self.caption)
        return (  # the caption outside, so that it does not scroll away with a wide table
            f'<p class="caption">{name}</p>'
            f'<div class="grid" tabindex="0" role="region" aria-label="{name}">'
            f'<table aria-label="{name}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def _row(self, row) -> str:
        first, *rest = zip(self.frame.columns, row, strict=True)
        cells = "".join(f"<td{self._side(name)}>{_cell(value)}</td>" for name, value in rest)
        return f'<tr><th scope="row">{escaped(first[1])}</th>{cells}</tr>'

    def _side(self, name) -> str:
        return ' class="number"' if name in self.numbers else ""


def _cell(value) -> str:
    """A value; its interval stands below it, which keeps tables narrow."""
    return escaped(value).replace(" [", "<br>[") if str(value).endswith("]") else escaped(value)


@dataclass(frozen=True)
class Picture:
    """A figure, kept as SVG; `alt` says what it shows to those who do not see it."""

    svg: bytes
    alt: str
    caption: str

    def html(self) -> str:
        data = base64.b64encode(self.svg).decode("ascii")
        alt = html.escape(plain(self.alt, MAX_SENTENCE))
        return (
            f'<figure><img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{escaped(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Code:
    """Python to copy."""

    text: str

    def html(self) -> str:
        return f'<pre tabindex="0"><code>{html.escape(self.text)}</code></pre>'


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. Shows itself, under the heading of a notebook's cell."""

    title: str
    blocks: list = field(default_factory=list)

    def html(self, name="") -> str:
        """Return the section as HTML; `name` is for links to it."""
        inside = self._inside()
        return f'<section id="{name}">\n<h2>{escaped(self.title)}</h2>\n{inside}\n</section>'

    def _repr_html_(self) -> str:
        return f'<div class="report">\n{self._inside()}\n</div>'

    def _inside(self) -> str:
        return "\n".join(block.html() for block in self.blocks)

    def __str__(self) -> str:
        words = [block.text for block in self.blocks if isinstance(block, Words)]
        return "\n".join([self.title, *words])

    __repr__ = __str__


def picture(draw, alt, caption, *, size=(6.4, 4.2)) -> Picture:
    """Return what `draw(ax)` draws. Needs no display, and leaves no figure open."""
    style = [plots.STYLE, {"svg.fonttype": "path", "svg.hashsalt": "recbal"}]
    with matplotlib.style.context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(out.getvalue(), alt, caption)


STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --paper: #ffffff;
  --line: #d0d7de; --tint: #f3f5f8; --mark: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #aab4bf; --paper: #14171b;
  --line: #3a424c; --tint: #1e2329; --mark: #7db8f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
p { max-width: 46rem; margin: .6rem 0; }
p.strong { font-weight: 600; font-size: 1.1rem; border-left: .3rem solid var(--mark);
  padding: .3rem .8rem; background: var(--tint); }
.about { color: var(--soft); }
nav ul { list-style: none; margin: .5rem 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: .2rem 1rem; }
a { color: var(--mark); }
p.caption { color: var(--soft); font-size: .92rem; margin: 1.1rem 0 .2rem; }
.grid { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; min-width: 4.5rem;
  max-width: 24rem; }
thead th { background: var(--tint); }
tbody th { font-weight: 500; }
td.number { white-space: nowrap; max-width: none; }
tbody th { min-width: 7rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { th, td { padding: .35rem .4rem; max-width: 13rem; }
  td:last-child:not(.number) { min-width: 11rem; } }
.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; max-width: 42rem; }
figure img { width: 100%; height: auto; background: #ffffff; border-radius: .3rem; }
figcaption { color: var(--soft); font-size: .92rem; }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; font-size: .88rem;
  overflow-wrap: normal; }
@media print { :root { color-scheme: light; } nav { display: none; } }
"""


def page(title, about, sections) -> str:
    """Return one self-contained HTML page of the sections."""
    links, bodies = [], []
    for number, section in enumerate(sections, start=1):
        links.append(f'<li><a href="#s{number}">{escaped(section.title)}</a></li>')
        bodies.append(section.html(name=f"s{number}"))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # A second lock: even if a name of the file got through, nothing would run or load.
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{escaped(title)}</title>",
            f"<style>{STYLE}</style></head>",
            f'<body><header><h1>{escaped(title)}</h1><p class="about">{escaped(about)}</p>',
            f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav></header><main>',
            *bodies,
            "</main></body></html>\n",
        ]
    )
