"""Tables for the book's pages, made from what the notebooks recorded."""

import math
import re
from functools import partial
from pathlib import Path

import quiz
import slides
from common import CLAIMS, ROOT, TIMINGS, chapters, read_json, stop
from quiz import QUIZZES

HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*$")
FENCE = re.compile(r"^\s*(```+|~~~+|:::+)")
MARK = re.compile(r"^% made: (\w+)$", re.MULTILINE)
CLAIMED = re.compile(r"\{claimed\}`(?P<id>[a-z0-9-]+)(?: as (?P<form>\w+))?`")
FORMS = {
    "number": lambda value: value,
    "size": abs,
    "percent": lambda value: 100 * abs(value),
}


def headings(markdown: str) -> list[str]:
    """Titles of the headings in Markdown; lines in fenced blocks do not count."""
    titles, fence = [], None
    for line in markdown.split("\n"):
        mark = FENCE.match(line)
        if fence:
            fence = None if mark and line.strip() == fence else fence
        elif mark:
            fence = mark.group(1)
        elif match := HEADING.match(line):
            titles.append(match.group(2))
    return titles


def slug(title: str) -> str:
    """The anchor MyST gives to a heading, which follows GitHub's way."""
    plain = re.sub(r"[`*]|\$.*?\$", "", title)
    return re.sub(r"[^\w\u4e00-\u9fff\- ]", "", plain.lower().replace(" ", "-"))


def section_of(notebook: dict, identifier: str) -> str | None:
    """Title of the heading above the code cell that holds the claim's id."""
    title = None
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            title = (headings(source) or [title])[-1]
        elif re.search(rf"""["']{re.escape(identifier)}["']""", source):
            return title
    return None


def number(value: float) -> str:
    """A value as a reader wants it: whole numbers whole, others to four digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def source_cell(source: str) -> str:
    """'@key' becomes a citation; other text stays."""
    if source.startswith("@"):
        keys = [key.strip().removeprefix("@") for key in source.split(",")]
        return f"{{cite}}`{','.join(keys)}`"
    return source.replace("|", "\\|")


def address(claim: dict, title: str | None) -> str:
    """Where a page links to for a claim: the section that computes it."""
    link = f"../notebooks/{claim['chapter']}.ipynb"
    return f"{link}#{slug(title)}" if title else link


def claim_row(claim: dict, notebook: dict) -> str:
    """One row of a chapter's table."""
    title = section_of(notebook, claim["id"])
    where = f"[{title or 'chapter'}]({address(claim, title)})"
    cells = [
        (claim.get("statement") or claim["id"]).replace("|", "\\|"),
        number(claim["value"]),
        f"{number(claim['low'])} to {number(claim['high'])}",
        source_cell(claim["source"]),
        where,
    ]
    return f"| {' | '.join(cells)} |"


def chapter_title(notebook: dict) -> str:
    """The level-1 title of a notebook."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for line in "".join(cell["source"]).split("\n"):
                if line.startswith("# "):
                    return line[2:].strip()
    raise ValueError("the notebook has no level-1 title")


def claims_tables(folder: Path = CLAIMS, root: Path = ROOT) -> str:
    """A heading and a table for each chapter of the book that claims something."""
    parts = []
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        ledger = folder / f"{path.stem}.json"
        if not ledger.exists():
            continue
        notebook = read_json(path)
        rows = [claim_row(claim, notebook) for claim in read_json(ledger)]
        head = "| claim | measured | band | source | where |\n|---|---:|---:|---|---|"
        parts.append("\n".join([f"## {chapter_title(notebook)}\n", head, *rows]))
    return "\n\n".join(parts) or "No chapter has been run yet."


def timings_table(folder: Path = TIMINGS) -> str:
    """Seconds and peak memory of each chapter, and of the study it reads, as last run."""
    rows = []
    for chapter in chapters():
        if (folder / f"{chapter}.json").exists():
            record = read_json(folder / f"{chapter}.json")
            memory = record["peak_mb"] / 1024
            link = f"[](../notebooks/{chapter}.ipynb)"  # MyST fills in the title
            study = folder / f"study-{chapter}.json"
            spent = f"{read_json(study)['seconds']:.0f} s" if study.exists() else ""
            rows.append(f"| {link} | {record['seconds']:.0f} s | {memory:.1f} GB | {spent} |")
    head = ["| chapter | time | memory at most | its study, run once |", "|---|---:|---:|---:|"]
    return "\n".join([*head, *rows])


def claims_by_id(folder: Path = CLAIMS, root: Path = ROOT) -> dict[str, dict]:
    """Every claim of the book's chapters, as they last recorded it."""
    names = [path.stem for path in sorted((root / "notebooks").glob("[0-9]*.ipynb"))]
    ledgers = [folder / f"{name}.json" for name in names if (folder / f"{name}.json").exists()]
    return {claim["id"]: claim for path in ledgers for claim in read_json(path)}


def spoken(value: float, form: str) -> str:
    """A claimed value as it stands in a sentence: three digits, a minus sign, a unit."""
    shown = FORMS[form](value)
    if abs(shown) >= 1000 or float(shown).is_integer():
        text = f"{shown:,.0f}"
    else:
        digits = max(0, 2 - math.floor(math.log10(abs(shown))))
        text = f"{shown:.{digits if form != 'percent' or abs(shown) < 10 else 0}f}"
    return text.replace("-", "−") + (" %" if form == "percent" else "")


def say_claims(page: str, name: str, folder: Path = CLAIMS, root: Path = ROOT) -> str:
    """Put the value of a claim, linked to its section, where a page says {claimed}`id`.

    `{claimed}`id as size`` leaves the sign out, `{claimed}`id as percent`` too, and says a
    share in percent.
    """
    claims = claims_by_id(folder, root) if CLAIMED.search(page) else {}

    def value(match: re.Match) -> str:
        claim, form = claims.get(match["id"]), match["form"] or "number"
        if claim is None:
            stop(f"{name}: {match[0]} names no claim of a chapter that has been run")
        if form not in FORMS:
            stop(f"{name}: {match[0]} asks for a form unknown here; known: {list(FORMS)}")
        notebook = read_json(root / "notebooks" / f"{claim['chapter']}.ipynb")
        link = address(claim, section_of(notebook, claim["id"]))
        return f"[{spoken(claim['value'], form)}]({link})"

    return CLAIMED.sub(value, page)


MADE = {"claims": claims_tables, "timings": timings_table, "slides": slides.listed}
MADE |= {f"quiz_{path.stem}": partial(quiz.page, path.stem) for path in QUIZZES.glob("*.yml")}


def fill(page: str, name: str) -> str:
    """Put tables where a page has a line `% made: <table>`, values where it has {claimed}."""

    def table(match: re.Match) -> str:
        if match.group(1) not in MADE:
            stop(f"{name}: '{match.group(0)}' asks for a table unknown here; known: {list(MADE)}")
        return MADE[match.group(1)]()

    return say_claims(MARK.sub(table, page), name)
