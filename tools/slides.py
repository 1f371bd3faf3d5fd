"""Slides from `book/slides/<part>.md`, with the book's own figures, in one file that needs nothing.

A line `---` parts two slides; `![](fig-name)` is a figure of an executed notebook, by the name it
has there; a paragraph after `> ` is the speaker's note.
"""

import base64
import html
import re
import struct
from functools import cache
from pathlib import Path

from common import BUILD, EXECUTED, ROOT, chapters, read_json, stop, write_atomically
from markdown_it import MarkdownIt

SOURCES = ROOT / "book" / "slides"
THEME = Path(__file__).with_name("slides.html")
FIGURE = re.compile(r"^!\[\]\((?P<name>[\w-]+)\)$", re.MULTILINE)
NOTEBOOK = re.compile(r"\]\(\.\./notebooks/([\w-]+)\.ipynb")


@cache
def figures() -> dict[str, tuple[str, str]]:
    """Name of each figure of the executed notebooks, its PNG in base64, its alternative text."""
    found = {}
    for chapter in chapters():
        path = EXECUTED / f"{chapter}.ipynb"
        for cell in read_json(path)["cells"] if path.exists() else []:
            known = cell["metadata"].get("mystnb", {})
            data = [out.get("data", {}) for out in cell.get("outputs", [])]
            pictures = [one["image/png"] for one in data if "image/png" in one]
            if pictures and (name := known.get("figure", {}).get("name")):
                found[name] = (pictures[0], known.get("image", {}).get("alt", ""))
    return found


def picture(name: str, source: str) -> str:
    """A figure element that holds its picture."""
    if name not in figures():
        stop(f"book/slides/{source}: no executed notebook has a figure '{name}'")
    data, alt = figures()[name]
    data = "".join(data).replace("\n", "")
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}</figure>"


def is_tall(name: str) -> bool:
    """Whether a figure is higher than wide, from the first bytes of its PNG."""
    head = base64.b64decode("".join(figures()[name][0])[:64])
    width, height = struct.unpack(">II", head[16:24])
    return height > width


def slide(text: str, source: str) -> str:
    """One slide as a section; its notes as an aside, a tall figure beside its text."""
    notes = " ".join(re.findall(r"^> ?(.*)$", text, re.MULTILINE))
    body = re.sub(r"^>.*\n?", "", text, flags=re.MULTILINE)
    names = FIGURE.findall(body)
    body = FIGURE.sub(lambda match: picture(match["name"], source), body)
    read = MarkdownIt("commonmark", {"html": True})
    aside = f"<aside>{read.renderInline(notes)}</aside>" if notes else ""
    tall = ' class="tall"' if any(map(is_tall, names)) else ""
    return f"<section{tall}>\n{read.render(body)}{aside}\n</section>"


def title_of(path: Path) -> str:
    """The title of a deck: its first heading."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ").strip()


def deck(path: Path, say, to_html: str) -> str:
    """A deck as one page; `say` puts in values of claims, `to_html` leads to the book's pages."""
    text = say(path.read_text(encoding="utf-8"), f"book/slides/{path.name}")
    text = NOTEBOOK.sub(rf"]({to_html}notebooks/\1.html", text)
    sections = [slide(part.strip(), path.name) for part in re.split(r"^---$", text, flags=re.M)]
    page = THEME.read_text(encoding="utf-8")
    page = page.replace("{{title}}", html.escape(title_of(path)))
    return page.replace("{{slides}}", "\n".join(sections))


def sources() -> list[Path]:
    """The decks in the order of the parts."""
    order = ["diagnose", "balance", "model", "ship", "elsewhere"]
    rank = {name: place for place, name in enumerate(order)}
    return sorted(SOURCES.glob("*.md"), key=lambda path: rank.get(path.stem, len(order)))


def listed() -> str:
    """Links to all decks, for the page that names them."""
    return "\n".join(
        f'- <a href="../_static/slides/{path.stem}.html">{html.escape(title_of(path))}</a>'
        for path in sources()
    )


if __name__ == "__main__":
    from tables import say_claims

    for source in sources():
        target = BUILD / "slides" / f"{source.stem}.html"
        write_atomically(target, deck(source, say_claims, "../html/"))
        print(f"slides: {target.relative_to(ROOT)}")
