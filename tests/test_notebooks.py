"""The rules every chapter keeps, in its source and in its executed form."""

import ast
import json
import re
from pathlib import Path

import execute
import pytest
from common import notebook_environment
from conftest import BUILD, CHAPTERS, NOTEBOOKS, REPORT, ROOT, must, read_notebook

FIRST = ["What you will be able to do", "The question"]
LAST = ["What we learned", "Exercises", "Further reading"]
LONGEST_CELL = 20
FENCED = re.compile(r"^(`{3,}|:{3,}).*?^\1\s*$", re.M | re.S)
TYPED_RESULT = re.compile(r"\d[.,]\d|\d\s?%|\d\s?per ?cent\b")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=NOTEBOOKS, ids=CHAPTERS)
def notebook(request) -> dict:
    return read_notebook(request.param)


@pytest.fixture(params=[*NOTEBOOKS, REPORT], ids=[*CHAPTERS, "report"])
def any_notebook(request) -> dict:
    return read_notebook(request.param)


def cells(notebook, kind):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def tags(cell):
    return cell["metadata"].get("tags", [])


def headings(notebook, level):
    """Titles of one level, without what stands in code fences."""
    text = "\n\n".join(cell["source"] for cell in cells(notebook, "markdown"))
    return re.findall(rf"^#{{{level}}} (.+?)\s*$", FENCED.sub("", text), re.M)


def section(notebook, title):
    """The Markdown below a level-2 heading, up to the next one."""
    text = "\n\n".join(cell["source"] for cell in cells(notebook, "markdown"))
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def prose(markdown):
    """Markdown without code, mathematics, roles and the targets of links."""
    markdown = FENCED.sub(" ", markdown)
    for pattern in (r"\$\$.*?\$\$", r"\$[^$\n]+\$", r"`[^`\n]*`", r"\]\([^)]*\)", r"<[^>]*>"):
        markdown = re.sub(pattern, " ", markdown, flags=re.DOTALL)
    return markdown


def test_there_are_notebooks():
    assert CHAPTERS


def test_outputs_are_cleared(any_notebook):
    for cell in cells(any_notebook, "code"):
        assert not cell["outputs"], cell["source"]
        assert cell["execution_count"] is None


def test_kernel_is_python3(any_notebook):
    assert any_notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_imports_come_first(any_notebook):
    first, *others = [c for c in cells(any_notebook, "code") if "solution" not in tags(c)]
    assert isinstance(ast.parse(first["source"]).body[0], ast.Import | ast.ImportFrom)
    for cell in others:
        late = [
            s for s in ast.parse(cell["source"]).body if isinstance(s, ast.Import | ast.ImportFrom)
        ]
        assert not late, f"move this import to the first cell: {ast.unparse(late[0])}"


def test_second_code_cell_holds_the_parameters(any_notebook):
    tagged = [i for i, cell in enumerate(cells(any_notebook, "code")) if "parameters" in tags(cell)]
    assert tagged == [1]


def test_headings(notebook):
    titles = headings(notebook, 2)
    assert titles[:2] == FIRST
    assert titles[-3:] == LAST
    assert len(titles) > len(FIRST + LAST), "no section with an experiment"


def test_one_title_on_top(any_notebook):
    assert len(headings(any_notebook, 1)) == 1
    assert any_notebook["cells"][0]["source"].startswith("# ")


def test_code_cells_are_short(any_notebook):
    for cell in cells(any_notebook, "code"):
        assert cell["source"].count("\n") < LONGEST_CELL, cell["source"]


def test_no_result_is_typed(notebook):
    text = prose(section(notebook, "What we learned"))
    for found in TYPED_RESULT.finditer(text):
        around = text[max(found.start() - 40, 0) : found.end() + 20]
        pytest.fail(f"print this in the cell that computes it: …{around}…")


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("it gains 0.3 points", True),
        ("about 12 % of them", True),
        ("1,375 positives", True),
        ("in week 45 and 3 of 4", False),
        ("see `f(0.5)`, $p = 0.5$ and [here](v1.2.html)", False),
        ("```python\nx = 0.5\n```\n", False),
    ],
)
def test_the_rule_on_typed_results(text, typed):
    assert bool(TYPED_RESULT.search(prose(text))) is typed


def test_exercises_have_hints_and_solutions(notebook):
    text = section(notebook, "Exercises")
    labels = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n(?::[^\n]*\n)*?:label: (\S+)", text)
    solved = re.findall(r"\{solution(?:-start)?\} (\S+)", text)
    assert 3 <= len(labels) <= 4
    assert sorted(labels) == sorted(solved)
    assert len(re.findall(r"\bhint\b", text, re.I)) >= len(labels)


def test_code_of_solutions_is_tagged(notebook):
    inside = False
    for cell in notebook["cells"]:
        inside = (inside or "{solution-start}" in cell["source"]) and "{solution-end}" not in cell[
            "source"
        ]
        if cell["cell_type"] == "code":
            assert ("solution" in tags(cell)) == inside, cell["source"]


@pytest.mark.book
@pytest.mark.parametrize("chapter", [*CHAPTERS, "report"])
class TestAnyExecuted:
    def test_ran_as_it_stands(self, chapter, executed):
        source = read_notebook(ROOT / "notebooks" / f"{chapter}.ipynb")
        assert [c["source"] for c in executed["cells"]] == [c["source"] for c in source["cells"]]
        assert all(c["execution_count"] for c in cells(executed, "code") if c["source"].strip())

    def test_no_error_and_no_warning(self, chapter, executed):
        outputs = [output for cell in cells(executed, "code") for output in cell["outputs"]]
        assert outputs
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


@pytest.mark.book
@pytest.mark.parametrize("chapter", CHAPTERS)
class TestExecuted:
    def test_figures_have_alternative_text(self, chapter, executed):
        drawn = [
            cell
            for cell in cells(executed, "code")
            if any("image/png" in output.get("data", {}) for output in cell["outputs"])
        ]
        assert len(drawn) >= 3, "a chapter has three figures or more"
        for cell in drawn:
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, f"say in words what this figure shows: {cell['source']}"

    def test_claims(self, chapter, executed):
        claims = read_claims(BUILD / "claims", chapter)
        assert len(claims) >= 3
        code = "\n".join(cell["source"] for cell in cells(executed, "code"))
        for claim in claims:
            assert claim["low"] <= claim["value"] <= claim["high"], claim["id"]
            assert claim["source"], claim["id"]
            assert claim["chapter"] == chapter
            assert re.search(rf"[\"']{re.escape(claim['id'])}[\"']", code), claim["id"]


def read_claims(folder: Path, chapter: str) -> list:
    return json.loads((folder / f"{chapter}.json").read_text(encoding="utf-8"))


@pytest.mark.book
def test_ids_of_claims_are_unique():
    ledgers = [path.stem for path in (BUILD / "claims").glob("*.json") if path.stem in CHAPTERS]
    must(ledgers, "no chapter is executed; run 'make book' first")
    ids = [claim["id"] for chapter in ledgers for claim in read_claims(BUILD / "claims", chapter)]
    assert len(ids) == len(set(ids))


@pytest.mark.book
def test_a_second_run_gives_the_same_claims(tmp_path, monkeypatch):
    timings = [BUILD / "timings" / f"{chapter}.json" for chapter in CHAPTERS]
    records = [json.loads(path.read_text()) for path in timings if path.exists()]
    must(records, "no chapter is executed; run 'make book' first")
    chapter = min(records, key=lambda record: record["seconds"])["chapter"]
    environment = notebook_environment(tmp_path / "claims", tmp_path / "figures")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    execute.run(NOTEBOOKS[CHAPTERS.index(chapter)], tmp_path / "again.ipynb")
    assert read_claims(tmp_path / "claims", chapter) == read_claims(BUILD / "claims", chapter)
