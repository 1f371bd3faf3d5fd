"""The built pages: complete, linked, and loading nothing from elsewhere."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from conftest import BUILD, CHAPTERS, ROOT
from stage import toc_files

pytestmark = pytest.mark.book

TOC = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
ROLE = re.compile(r"\{(ref|numref|eq|term|doc|download|math|abbr|cite(:\w+)?|prf:\w+)\}")
UNREAD = {"script", "style", "pre", "code"}


class Page(HTMLParser):
    """What the checks need of a page: ids, links, loads, language, title, text."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loads, self.text, self.open = set(), [], [], [], []
        self.language = self.title = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found.get("id"), found.get("name")} - {None}
        if tag == "html":
            self.language = found.get("lang")
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") not in ("canonical",) and found.get("href"):
            self.loads.append(found["href"])
        if tag in ("script", "img", "iframe", "object", "source", "video") and (
            address := found.get("src") or found.get("data")
        ):
            self.loads.append(address)
        if tag in UNREAD | {"title"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if "title" in self.open:
            self.title = (self.title or "") + data
        elif not self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def pages(html) -> dict[Path, Page]:
    return {path: Page(path) for path in html.rglob("*.html") if "_static" not in path.parts}


@pytest.mark.parametrize("name", TOC)
def test_page_is_built(name, html, pages):
    page = pages[html / f"{name}.html"]
    assert page.language == "en"
    assert page.title
    assert not page.title.startswith("<no title>")


def broken(path: Path, address: str, pages) -> bool:
    """Whether a local address leads nowhere; addresses elsewhere are not followed."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return True
    anchor = unquote(parts.fragment)
    return bool(anchor) and target in pages and anchor not in pages[target].ids


def test_every_local_link_leads_somewhere(pages):
    found = [
        f"{path.name} -> {address}"
        for path, page in pages.items()
        for address in page.links + page.loads
        if broken(path, address, pages)
    ]
    assert not found


def test_link_checker_finds_faults(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("<a href='b.html'></a><a href='#no'></a><a href='#yes' id='yes'></a>")
    page = Page(path)
    assert [broken(path, link, {path: page}) for link in page.links] == [True, True, False]


def test_pages_load_nothing_from_the_network(pages):
    loads = {address for page in pages.values() for address in page.loads}
    assert loads
    assert not [address for address in loads if urlsplit(address).netloc]
    styles = (path.read_text("utf-8") for path in (BUILD / "html").rglob("*.css"))
    assert not [text for text in styles if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text)]


def test_no_role_is_left_unread(pages):
    found = {path.name: ROLE.findall(" ".join(page.text)) for path, page in pages.items()}
    assert not {name: roles for name, roles in found.items() if roles}


def test_no_path_of_this_machine(html):
    made = [*(BUILD / "executed").glob("*.ipynb"), *(BUILD / "claims").glob("*.json")]
    made += [path for path in html.rglob("*") if path.suffix in (".html", ".js", ".ipynb", ".svg")]
    private = [str(path) + "/" for path in (ROOT, Path.home()) if len(path.parts) > 1]
    for path in made:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [name for name in private if name in text], path


def test_claims_page_lists_every_claim(html):
    page = (html / "book" / "claims.html").read_text(encoding="utf-8")
    ledgers = [BUILD / "claims" / f"{chapter}.json" for chapter in CHAPTERS]
    claims = [claim for path in ledgers for claim in json.loads(path.read_text(encoding="utf-8"))]
    assert "% made:" not in page
    tables = page.split('id="time-and-memory"')[0]
    assert tables.count("<tr") == len(claims) + len(ledgers)  # a row a claim, and the heads
