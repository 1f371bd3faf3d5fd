"""Slides: from short Markdown to one page that needs nothing."""

import base64
import re
import struct

import pytest
import slides
from conftest import NOTEBOOKS, read_notebook

DECKS = slides.sources()


def png(width: int, height: int) -> str:
    """The first bytes of a PNG of that size, in base64."""
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return base64.b64encode(head + bytes(40)).decode()


@pytest.fixture
def two_figures(monkeypatch):
    known = {"fig-wide": (png(20, 10), 'A "wide" one'), "fig-tall": (png(10, 20), "A tall one")}
    monkeypatch.setattr(slides, "figures", lambda: known)


def named_figures() -> set[str]:
    """Names of all figures in the sources of the notebooks."""
    cells = [cell for path in NOTEBOOKS for cell in read_notebook(path)["cells"]]
    known = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    return {name for name in known if name}


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_decks_show_figures_that_notebooks_draw(path):
    text = path.read_text(encoding="utf-8")
    shown = slides.FIGURE.findall(text)
    assert len(shown) >= 5
    assert set(shown) <= named_figures()
    assert text.count("![") == len(shown), "a figure stands alone on its line, as ![](fig-name)"


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_slides_are_short(path):
    for part in re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.M):
        shown = re.sub(r"^>.*$", "", part, flags=re.M)
        assert len(shown.split()) <= 60, part
        assert re.match(r"\s*#{1,2} \S", part), "a slide opens with its title"


def test_a_slide_holds_its_picture_and_hides_its_notes(two_figures):
    page = slides.slide("## One\n\n![](fig-wide)\n\n- said\n\n> only *spoken*", "a.md")
    assert page.startswith("<section>")
    assert 'alt="A &quot;wide&quot; one" src="data:image/png;base64,' in page
    assert "<aside>only <em>spoken</em></aside>" in page
    assert "&gt;" not in page


def test_a_tall_figure_stands_beside_the_text(two_figures):
    assert slides.slide("## One\n\n![](fig-tall)", "a.md").startswith('<section class="tall">')


def test_a_figure_that_nobody_drew_stops_the_book(two_figures, capsys):
    with pytest.raises(SystemExit):
        slides.slide("## One\n\n![](fig-none)", "a.md")
    assert capsys.readouterr().err.startswith("book/slides/a.md: ")


def test_a_deck_is_one_page_that_loads_nothing(two_figures, tmp_path):
    path = tmp_path / "deck.md"
    path.write_text("# A & B\n\n---\n\n## Two\n\n![](fig-wide)\n\n- {claimed}`x`\n")
    say = lambda text, name: text.replace("{claimed}`x`", "[5](../notebooks/01_a.ipynb#s)")
    page = slides.deck(path, say, "../../")
    assert page.count("<section") == 2
    assert "<title>A &amp; B</title>" in page
    assert '<a href="../../notebooks/01_a.html#s">5</a>' in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert "{{" not in page
