"""The build scripts: what they do on a bad day as well as on a good one."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import common
import deps
import execute
import nbformat
import offline_kit
import pytest
import report
import stage
import student
import tables
from conftest import REPORT, ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

# ---- a small project with the real build scripts ---------------------------------------


def write_chapter(project: Path, name: str, *code: str) -> Path:
    cells = [new_markdown_cell(f"# {name}\n\nText."), *map(new_code_cell, code)]
    path = project / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def project(tmp_path) -> Path:
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__py*"))
    shutil.copytree(ROOT / "book" / "assets", tmp_path / "book" / "assets")
    (tmp_path / "book" / "references.bib").touch()
    (tmp_path / "book" / "index.md").write_text("# Home\n\nWelcome.\n")
    shutil.copy(ROOT / "_config.yml", tmp_path)
    package = tmp_path / "recbal_utils"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "datasets.py").write_text("print('data: ready')\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    write_chapter(tmp_path, "01_good", "print('good')")
    write_toc(tmp_path, "01_good")
    return tmp_path


def write_toc(project: Path, *names: str) -> None:
    entries = "".join(f"  - file: notebooks/{name}\n" for name in names)
    (project / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{entries}")


def chain(project: Path, wanted: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/chain.py", wanted]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def failed_lines(result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("FAILED")]


def test_failing_notebooks_are_named_in_one_line_each_and_the_rest_runs(project):
    write_chapter(project, "02_bad", "x = 1", "x / 0")
    write_chapter(project, "03_warns", "import warnings\nwarnings.warn('careful')")
    write_chapter(project, "04_fine", "print('fine')")
    result = chain(project, "html")
    assert result.returncode == 1
    bad, warns = failed_lines(result)
    assert bad == "FAILED 02_bad: cell 3 [2]: ZeroDivisionError: division by zero"
    assert warns.startswith("FAILED 03_warns: cell 2: wrote to stderr: ")
    assert result.stderr.splitlines()[-2:] == [bad, warns]
    made = {path.stem for path in (project / "_build" / "executed").glob("*.ipynb")}
    assert made == {"01_good", "04_fine"}
    assert "[4/4]" in result.stdout


STUDY = """import sys
import recbal_utils
print("one of one")
if {fails}:
    sys.exit("no positives")
open(sys.argv[1], "w").write("{word}")
"""
READS_IT = """# studies.read("02_study") is what the build looks for
print(open("../_build/studies/02_study.parquet").read())"""


def write_study(project, word="first", fails=False):
    (project / "studies").mkdir(exist_ok=True)
    script = project / "studies" / "02_study.py"
    script.write_text(STUDY.format(word=word, fails=fails))
    return script


def printed(project):
    notebook = nbformat.read(project / "_build" / "executed" / "02_reader.ipynb", as_version=4)
    return notebook.cells[-1].outputs[0].text.strip()


def test_a_study_runs_before_the_notebook_that_reads_it_and_only_when_due(project):
    script = write_study(project)
    write_chapter(project, "02_reader", READS_IT)
    first = chain(project, "notebooks/02")
    assert first.returncode == 0, first.stderr
    assert "study-02_study: started" in first.stdout
    assert "02_study: one of one" in first.stdout
    assert printed(project) == "first"
    assert chain(project, "notebooks/02").stdout == ""
    script.write_text(STUDY.format(word="second", fails=False))
    later = script.stat().st_mtime + 10
    os.utime(script, (later, later))
    chain(project, "notebooks/02")
    assert printed(project) == "second"


@pytest.mark.parametrize(
    "code",
    [
        'found = studies.read("02_study", recompute=RECOMPUTE)',
        "from recbal_utils.studies import read\nfound = read(\n    '02_study')",
    ],
)
def test_a_reader_is_known_however_the_function_was_imported(code):
    assert deps.studies_read(code) == ["_build/studies/02_study.parquet"]
    assert deps.studies_read('pd.read("other"), thread("02_study")') == []


def test_a_study_that_fails_is_told_in_one_line_and_its_reader_waits(project):
    write_study(project, fails=True)
    write_chapter(project, "02_reader", READS_IT)
    result = chain(project, "html")
    assert result.returncode == 1
    assert failed_lines(result) == ["FAILED study-02_study: no positives"]
    made = {path.stem for path in (project / "_build" / "executed").glob("*.ipynb")}
    assert made == {"01_good"}
    assert not list((project / "_build" / "studies").glob("02*"))


def test_a_failure_keeps_the_last_good_results(project):
    ledger = (
        "import json, os, pathlib\n"
        "folder = pathlib.Path(os.environ['RECBAL_CLAIMS_DIR'])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "(folder / '01_good.json').write_text(json.dumps([]))"
    )
    write_chapter(project, "01_good", ledger)
    assert chain(project, "01").returncode == 0
    kept = [project / "_build" / "executed/01_good.ipynb", project / "_build/claims/01_good.json"]
    before = [path.read_bytes() for path in kept]
    write_chapter(project, "01_good", ledger.replace("[]", "['worse']"), "raise SystemExit(3)")
    assert chain(project, "01").returncode == 1
    assert [path.read_bytes() for path in kept] == before
    assert not list((project / "_build").glob("run-*"))


def test_nothing_is_executed_twice(project):
    assert "01_good: done" in chain(project, "01").stdout
    assert chain(project, "01").stdout == ""
    module = project / "recbal_utils" / "extra.py"
    module.write_text("")
    assert chain(project, "01").stdout == ""
    write_chapter(project, "01_good", "from recbal_utils import extra")
    environment = project / "notebooks" / "recbal_utils"
    environment.symlink_to(project / "recbal_utils")
    assert "01_good: done" in chain(project, "01").stdout
    os.utime(module)
    assert "01_good: done" in chain(project, "01").stdout


def test_a_chapter_is_named_by_its_number(project):
    result = chain(project, "notebooks/07")
    assert result.returncode == 1
    assert result.stderr == "'notebooks/07' names 0 notebooks, not one; choose from: 01_good\n"


def test_a_warning_stops_the_book_each_time_and_keeps_the_last_good_pages(project):
    assert chain(project, "html").returncode == 0
    page = project / "_build" / "html" / "book" / "index.html"
    before = page.read_bytes()
    index = project / "book" / "index.md"
    index.write_text("# Home\n\nSee [nothing](no.md).\n")
    for _ in range(2):
        result = chain(project, "html")
        assert result.returncode == 1
        assert "book/index.md" in result.stderr
        assert str(project) not in result.stderr
        assert page.read_bytes() == before
    index.write_text("# Home\n\nBetter.\n")
    assert chain(project, "html").returncode == 0
    assert b"Better." in page.read_bytes()


# ---- a report on a log of one's own --------------------------------------------------------


def make_report(folder, *options):
    """`make report` as called from another folder; what it says, and the files left there."""
    command = ["make", "--silent", "-C", str(ROOT), "report", *options]
    # As from a shell: the make that runs these tests hands its own words on.
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env=outside | {"PWD": str(folder), "USER": "somebody"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert (done.returncode == 0) == (not lines), done.stderr
    return done.stdout.splitlines() if done.returncode == 0 else lines


def write_log(folder):
    rows = [f"{i * 37 % 101},{i % 7},{'yes' if i % 11 == 3 else 'no'}" for i in range(120)]
    (folder / "my log.csv").write_text("\n".join(['a,$(x) `b`,it\'s "y"', *rows]) + "\n")
    return ["LOG=my log.csv", 'LABEL=it\'s "y"', "ITEM=$(x) `b`"]


def test_report_is_written_where_make_was_called(tmp_path):
    said = make_report(tmp_path, *write_log(tmp_path), "OUTPUT=my report.html")
    assert said[-2].startswith("Too few positives to tell")
    assert said[-1] == f"report: {tmp_path / 'my report.html'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my log.csv", "my report.html"]
    page = (tmp_path / "my report.html").read_text()
    assert "$(x) `b`" in page
    assert "somebody" not in page


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["LABEL=clicked"], "make report needs LOG="),
        (["LABEL=clicked", "LOG=none.csv"], "Cannot open"),  # said by the notebook
        (["LABEL=clicked", "LOG=x", "COST_PF=2"], "no option COST_PF: did you mean COST_FP?"),
        (["LABEL=clicked", "LOG=x", "COST_FP=2"], "both COST_FP= and COST_FN="),
        (["LABEL=clicked", "LOG=x", "COST_FP=2", "COST_FN=0"], "COST_FN=0 is not a positive"),
        (["LABEL=clicked", "LOG=x", "MAX_ROWS=1e3"], "not a whole number from 100 on"),
        (["LABEL=clicked", "LOG=x", "OUTPUT=."], "is a folder: give OUTPUT= a file name"),
    ],
)
def test_what_a_report_cannot_do_is_one_line(tmp_path, options, reason):
    (line,) = make_report(tmp_path, *options)
    assert line.startswith("error: ")
    assert reason in line
    assert list(tmp_path.iterdir()) == []


def test_a_fault_within_the_report_is_one_line(project):
    write_chapter(project, "report", "x = 1", "x / 0")
    environment = {"RECBAL_REPORT_LOG": "a", "RECBAL_REPORT_LABEL": "b"}
    result = subprocess.run(
        [sys.executable, "tools/report.py"],
        cwd=project,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("fault: ZeroDivisionError: division by zero; this is a fault")
    assert result.stderr.count("\n") == 1


def test_the_notebook_takes_every_option_of_the_report():
    notebook = nbformat.read(REPORT, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    names = re.findall(r"^(\w+) =", cell.source, re.MULTILINE)
    assert sorted(names) == sorted(report.KNOWN)


def test_the_report_is_a_page_of_the_book_and_a_scratch_notebook_is_not(tmp_path):
    for name in ("report", "02_b", "01_a", "Untitled"):
        write_chapter(tmp_path, name, "1")
    assert [p.stem for p in common.notebooks(tmp_path)] == ["01_a", "02_b", "report"]
    rules = deps.rules(tmp_path)
    assert "_build/executed/report.ipynb: " in rules
    assert "Untitled" not in rules


# ---- setup ------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path) -> Path:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    (tmp_path / "requirements.txt").write_text("no-such-package==1.0\n")
    (tmp_path / "requirements-data.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def setup(clone: Path, **environment) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    clean |= {"PIP_CONFIG_FILE": os.devnull, "PYTHON": sys.executable, "RECBAL_DISK_GB": "0"}
    command = ["bash", "tools/setup.sh"]
    return subprocess.run(
        command, cwd=clone, env=clean | environment, capture_output=True, text=True, check=False
    )


def only_line(result) -> str:
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    return line


def fake_python(clone: Path, script: str) -> str:
    path = clone / "python-fake"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_named(clone):
    old = fake_python(clone, 'case "$1" in --version) echo "Python 3.8.2";; *) exit 1;; esac')
    line = only_line(setup(clone, PYTHON=old))
    assert "Python 3.8.2" in line
    assert "3.11 to 3.13" in line
    assert not (clone / ".venv").exists()


def test_a_missing_python_is_named(clone):
    assert "no-such-python is not on the path" in only_line(setup(clone, PYTHON="no-such-python"))


def test_a_python_without_venv_is_named(clone):
    script = f'case "$*" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac'
    line = only_line(setup(clone, PYTHON=fake_python(clone, script)))
    assert "python3-venv" in line


def test_a_full_disk_is_named(clone):
    line = only_line(setup(clone, RECBAL_DISK_GB="99999999"))
    assert "GB free" in line
    assert not (clone / ".venv").exists()


def test_no_network_is_named_and_nothing_half_made_is_taken_as_good(clone):
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    for _ in range(2):
        line = only_line(setup(clone, **unreachable))
        assert "the package index was not reached" in line
        assert not (clone / ".venv" / ".installed").exists()


# ---- offline kit --------------------------------------------------------------------------


def test_the_kit_carries_sources_and_nothing_made(tmp_path):
    for name in ("a.py", "notebooks/b.ipynb", "_build/c", ".venv/d", "wheels/e", "x/__pycache__/f"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = offline_kit.sources(tmp_path)
    assert found == [Path("a.py"), Path("notebooks/b.ipynb")]
    offline_kit.copy(found, tmp_path, tmp_path / "kit")
    assert (tmp_path / "kit/notebooks/b.ipynb").read_text() == "notebooks/b.ipynb"


def test_the_kit_carries_whole_tables_only(tmp_path):
    for name in ("a.parquet", "a.json", "half.parquet", "seal.json"):
        (tmp_path / name).touch()
    assert offline_kit.sealed(tmp_path) == [Path("a.json"), Path("a.parquet")]


def test_pins_of_another_patch_release_are_fetched_too():
    minor = offline_kit.label()["python"]
    text = (
        "# a comment\nplain==1\n    # via x\n"
        f"old==1 ; python_full_version < '{minor}.0.post1'\n"
        f"new==2 ; python_full_version >= '{minor}.99'\n"
        "never==3 ; sys_platform == 'nowhere'\n"
    )
    assert offline_kit.pins_of_other_patches(text) == {
        f"{minor}.0": ["old==1"],
        f"{minor}.99": ["new==2"],
    }


def make_kit(clone: Path, **changes) -> None:
    (clone / "wheels").mkdir()
    made_for = json.dumps({**offline_kit.label(), **changes})
    (clone / "wheels" / "made-for.json").write_text(made_for)


WHEEL = """Wheel-Version: 1.0
Generator: test
Root-Is-Purelib: true
Tag: py3-none-any
"""


def tiny_wheel(folder: Path, name: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", WHEEL)
        file.writestr(f"{info}/RECORD", "")


def test_a_kit_installs_from_its_wheels_and_asks_no_index(clone):
    make_kit(clone)
    tiny_wheel(clone / "wheels", "recbalprobe")
    (clone / "requirements.txt").write_text("recbalprobe==1.0\n")
    result = setup(clone, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    installed = list((clone / ".venv" / "lib").glob("*/site-packages/recbalprobe.py"))
    assert installed, result.stderr
    # The project itself is no package in this clone: that is where it stops.
    assert "wheels lacks a package" in only_line(result)


def test_a_kit_that_lacks_a_wheel_says_so(clone):
    make_kit(clone)
    assert "the folder wheels lacks a package: ERROR: No matching" in only_line(setup(clone))


def test_a_kit_for_another_machine_is_refused(clone):
    make_kit(clone, system="Other")
    line = only_line(setup(clone))
    assert "the wheels here are for Other" in line
    assert not (clone / ".venv").exists()


def test_a_kit_for_another_python_is_refused(clone):
    make_kit(clone, python="3.9")
    assert "Python 3.9 is needed" in only_line(setup(clone))


# ---- what imports what --------------------------------------------------------------------


def test_rules_follow_imports_through_modules(tmp_path):
    package = tmp_path / "recbal_utils"
    package.mkdir()
    for name, code in {
        "__init__": "",
        "errors": "",
        "sampling": "from .errors import RecbalError",
        "datasets": "import recbal_utils.sampling",
        "plots": "",
    }.items():
        (package / f"{name}.py").write_text(code)
    write_chapter(tmp_path, "01_a", "%matplotlib inline\nfrom recbal_utils import datasets")
    write_chapter(tmp_path, "02_b", "import pandas")
    first, second, data = deps.rules(tmp_path).splitlines()
    needed = [f"recbal_utils/{n}.py" for n in ("__init__", "datasets", "errors", "sampling")]
    assert first == f"_build/executed/01_a.ipynb: {' '.join(needed)}"
    assert second == "_build/executed/02_b.ipynb: "
    assert data == f"DATA_MODULES := {' '.join(needed)}"


def test_a_study_is_due_again_when_the_benchmark_it_runs_has_changed(tmp_path):
    for folder in ("recbal_utils", "studies", "benchmarks"):
        (tmp_path / folder).mkdir()
    for name in ("bench_a", "bench_b"):
        (tmp_path / "benchmarks" / f"{name}.py").touch()
    (tmp_path / "studies" / "01_a.py").write_text("RUN = 'bench_b.py'")
    assert deps.rules(tmp_path).splitlines()[0] == (
        "_build/studies/01_a.parquet: benchmarks/bench_b.py"
    )


# ---- tables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (318957363, "318,957,363"),
        (318957363.0, "318,957,363"),
        (0.000993, "0.000993"),
        (0.93214, "0.9321"),
        (12345.6, "12,346"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_in_tables(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.5654, "percent", "57 %"),
        (-0.0342, "percent", "3.42 %"),
        (-0.00213, "number", "−0.00213"),
        (-0.00213, "size", "0.00213"),
        (151.436, "number", "151"),
        (1006.06, "number", "1,006"),
        (11.9358, "number", "11.9"),
        (0, "number", "0"),
    ],
)
def test_claimed_values_in_sentences(value, form, text):
    assert tables.spoken(value, form) == text


@pytest.fixture
def claiming(tmp_path) -> Path:
    cells = [
        new_markdown_cell("# The log\n\n## How rare?"),
        new_code_cell('ledger.claim("rate", rate, 0, 1, "@he2009")'),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "01_log.ipynb")
    claim = {"id": "rate", "chapter": "01_log", "value": 0.25, "low": 0, "high": 0.5}
    (tmp_path / "01_log.json").write_text(json.dumps([claim]))
    return tmp_path


def test_a_claim_is_said_in_a_sentence(claiming):
    text = tables.say_claims("So {claimed}`rate as percent`.", "page.md", claiming, claiming)
    assert text == "So [25 %](../notebooks/01_log.ipynb#how-rare)."


@pytest.mark.parametrize("mark", ["{claimed}`unknown`", "{claimed}`rate as loud`"])
def test_a_claim_that_cannot_be_said_stops_the_book(mark, claiming, capsys):
    with pytest.raises(SystemExit):
        tables.say_claims(mark, "page.md", claiming, claiming)
    assert capsys.readouterr().err.startswith(f"page.md: {mark}")


def test_claims_become_tables(tmp_path):
    cells = [
        new_markdown_cell("# The log\n\n## How `rare`?\n\n```text\n## no heading\n```"),
        new_code_cell('ledger.claim("rate", rate, 0, 1, "@he2009, gini1912")'),
        new_markdown_cell("## What we learned"),
        new_code_cell('print("rates")'),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "01_log.ipynb")
    claim = {"id": "rate", "chapter": "01_log", "value": 0.25, "low": 0, "high": 0.5}
    claim |= {"source": "@he2009, gini1912", "statement": "a | b"}
    (tmp_path / "01_log.json").write_text(json.dumps([claim]))
    text = tables.claims_tables(tmp_path, tmp_path)
    assert text.startswith("## The log\n")
    assert text.splitlines()[-1] == (
        "| a \\| b | 0.25 | 0 to 0.5 | {cite}`he2009,gini1912` "
        "| [How `rare`?](../notebooks/01_log.ipynb#how-rare) |"
    )


def test_an_unknown_table_is_refused(capsys):
    assert tables.fill("no mark", "page.md") == "no mark"
    with pytest.raises(SystemExit):
        tables.fill("% made: nonsense", "book/page.md")
    assert capsys.readouterr().err.startswith("book/page.md: ")


# ---- stage --------------------------------------------------------------------------------


def test_stage_touches_only_what_changed(tmp_path):
    files = {Path("a.md"): b"a", Path("sub/b.md"): b"b"}
    assert len(stage.sync(files, tmp_path)) == 2
    assert stage.sync(files, tmp_path) == []
    assert stage.sync({Path("a.md"): b"new"}, tmp_path) == [
        tmp_path / "sub/b.md",
        tmp_path / "a.md",
    ]
    assert not (tmp_path / "sub/b.md").exists()


@pytest.mark.parametrize(
    ("sources", "word"),
    [(["book/a.md", "book/b.md", "notebooks/c.ipynb"], "book/b"), (["book/a.md"], "notebooks/c")],
)
def test_contents_and_sources_must_agree(sources, word, capsys):
    toc = b"root: book/a\nparts:\n- caption: P\n  chapters:\n  - file: notebooks/c\n"
    files = {Path("_toc.yml"): toc} | {Path(name): b"" for name in sources}
    with pytest.raises(SystemExit):
        stage.check_toc(files)
    assert word in capsys.readouterr().err


# ---- student edition and executed notebooks -------------------------------------------------


def test_student_edition_has_no_solution():
    text = "```{exercise}\nTry.\n```\n\n````{solution} ex\n```python\nx\n```\n````\n\nAfter."
    cells = [
        new_markdown_cell(text),
        new_markdown_cell("```{solution-start} ex-2\n```"),
        new_code_cell("answer = 42"),
        new_markdown_cell("```{solution-end}\n```"),
        new_code_cell("kept = 1"),
    ]
    left = student.without_solutions(new_notebook(cells=cells)).cells
    answer = "# Your answer to ex-2: write it here.\n"
    exercise = "```{exercise}\nTry.\n```\n\n\n\nAfter."
    assert [c.source for c in left] == [exercise, answer, "kept = 1"]


def test_an_exercise_beside_a_solution_stays_in_the_student_edition():
    cells = [
        new_markdown_cell("```{exercise} One\nTry.\n```\n\n````{solution-start} ex-1\n````"),
        new_code_cell("answer = 42"),
        new_markdown_cell("So 42.\n\n````{solution-end}\n````\n\n```{exercise} Two\nGo.\n```"),
        new_markdown_cell(
            "````{solution-start} ex-2\n````\n\nBecause.\n\n````{solution-end}\n````"
        ),
        new_code_cell("kept = 1"),
    ]
    left = student.without_solutions(new_notebook(cells=cells)).cells
    one, two = "```{exercise} One\nTry.\n```", "```{exercise} Two\nGo.\n```"
    answers = [f"# Your answer to ex-{k}: write it here.\n" for k in (1, 2)]
    assert [c.source for c in left] == [one, answers[0], two, answers[1], "kept = 1"]


def test_the_student_edition_is_made_anew_but_never_over_a_learners_work(tmp_path, capsys):
    source = write_chapter(tmp_path, "01_a", "x = 1")
    notebook = nbformat.read(source, as_version=4)
    notebook.cells[0].source += " See [words](../book/glossary.md)."
    nbformat.write(notebook, source)
    copy = tmp_path / "_build" / "student" / source.name
    student.main(source.parent, copy.parent)
    assert "](../../book/glossary.md)" in copy.read_text()
    write_chapter(tmp_path, "01_a", "x = 2")
    student.main(source.parent, copy.parent)
    assert "x = 2" in copy.read_text()
    copy.write_text(copy.read_text().replace("x = 2", "x = 'mine'"))
    student.main(source.parent, copy.parent)
    assert "mine" in copy.read_text()
    assert "holds your work and is kept" in capsys.readouterr().out


def test_records_of_the_run_are_taken_out():
    cell = new_code_cell("1", metadata={"papermill": {"duration": 1}, "tags": ["t"]})
    notebook = new_notebook(cells=[cell], metadata={"papermill": {"input_path": "/x"}})
    clean = execute.without_records(notebook)
    assert "papermill" not in clean.metadata
    assert clean.cells[0].metadata == {"tags": ["t"]}
