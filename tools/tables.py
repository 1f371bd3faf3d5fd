"""Tables for the book's pages, made from what the notebooks recorded."""

import re
from pathlib import Path

from common import CLAIMS, ROOT, TIMINGS, chapters, read_json, stop

HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*$")
FENCE = re.compile(r"^\s*(```+|~~~+|:::+)")
MARK = re.compile(r"^% made: (\w+)$", re.MULTILINE)


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


def claim_row(claim: dict, notebook: dict) -> str:
    """One row of a chapter's table."""
    chapter = claim["chapter"]
    title = section_of(notebook, claim["id"])
    link = f"../notebooks/{chapter}.ipynb"
    where = f"[{title}]({link}#{slug(title)})" if title else f"[chapter]({link})"
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


MADE = {"claims": claims_tables, "timings": timings_table}


def fill(page: str, name: str) -> str:
    """Put the tables in the places that a page marks with a line `% made: <table>`."""

    def table(match: re.Match) -> str:
        if match.group(1) not in MADE:
            stop(f"{name}: '{match.group(0)}' asks for a table unknown here; known: {list(MADE)}")
        return MADE[match.group(1)]()

    return MARK.sub(table, page)
