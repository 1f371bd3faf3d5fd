"""`check` tells right from wrong without holding the right answer."""

import ast
import json
import math

import answers
import pytest
import student
from conftest import CHAPTERS, NOTEBOOKS, ROOT, read_notebook
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from recbal_utils import checks
from recbal_utils.errors import RecbalError

SALT = "ex-99-1/x"
NUMBERS = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6)


def said(value, right, **options):
    return checks.verdict(value, checks.make_key(right, SALT, **options), SALT)


@given(NUMBERS, st.floats(-1, 1))
def test_numbers_within_the_tolerance_are_right(right, share):
    key = checks.make_key(right, SALT)
    assert checks.verdict(right + 0.99 * share * key["step"], key, SALT) == "right."


@given(NUMBERS, st.floats(2.01, 50))
def test_numbers_beyond_twice_the_tolerance_are_not(right, steps):
    key = checks.make_key(right, SALT)
    assert checks.verdict(right + steps * key["step"], key, SALT) != "right."
    assert 0.005 * abs(right) < key["step"] <= 0.0151 * abs(right)


@pytest.mark.parametrize(
    ("value", "right", "word"),
    [
        (4.605, -4.605, "sign"),
        (0.25, 4, "upside down"),
        (0.2, 0.8, "share of the others"),
        (42.0, 0.42, "in percent"),
        (0.0042, 0.42, "factor of a hundred"),
        (math.log(7.3), 7.3, "logarithm"),
        (49.0, 7.0, "square root"),
    ],
)
def test_common_slips_are_hinted_at(value, right, word):
    assert said(value, right).startswith("not yet. ")
    assert word in said(value, right)


def test_traps_have_their_own_hints():
    traps = [(3.22, "The copies count too.")]
    assert said(3.22, -4.605, traps=traps) == "not yet. The copies count too."
    assert said(2.0, -4.605, traps=traps) == "not yet."


@pytest.mark.parametrize(
    ("value", "right", "words"),
    [
        (..., 1, "still empty."),
        (float("nan"), 1, "not yet."),
        ("one", 1, "not yet. A number is asked for."),
        (1, "one", "not yet. A word is asked for."),
        (" average  PRECISION", "average precision", "right."),
        (True, True, "right."),
        (False, True, "not yet."),
        (0, 0, "right."),
        (0.5, 0, "not yet."),
    ],
)
def test_other_answers(value, right, words):
    assert said(value, right) == words


def test_a_key_does_not_hold_its_answer():
    assert "4605" not in json.dumps(checks.make_key(-4.605, SALT)).replace(".", "")
    assert "banana" not in json.dumps(checks.make_key("banana", SALT))


@pytest.fixture
def one_exercise(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ANSWERS", tmp_path)
    monkeypatch.delenv("RECBAL_CHECKS_RECORD", raising=False)
    monkeypatch.delenv("RECBAL_CHECKS", raising=False)
    lines = [{"exercise": "ex-99-1", "within": None, "answers": {"x": 4.0, "y": 0.5}}]
    traps = {"ex-99-1": {"x": [[5.0, "One too many."]]}}
    (tmp_path / "99.json").write_text(json.dumps(answers.keys(lines, traps)))


def test_each_answer_gets_a_line(one_exercise, capsys):
    checks.check("ex-99-1", x=5, y=...)
    assert capsys.readouterr().out == (
        "ex-99-1 x: not yet. One too many.\nex-99-1 y: still empty.\n"
    )


def test_the_book_stops_at_a_wrong_solution(one_exercise, monkeypatch):
    monkeypatch.setenv("RECBAL_CHECKS", "strict")
    checks.check("ex-99-1", x=4)
    with pytest.raises(checks.CheckError, match=r"ex-99-1 .*x \(not yet\. One too many\.\)"):
        checks.check("ex-99-1", x=5, y=0.5)


@pytest.mark.parametrize(
    ("exercise", "given", "word"),
    [
        ("ex-99-2", {"x": 1}, "no exercise 'ex-99-2'"),
        ("nonsense", {"x": 1}, "no exercise"),
        ("ex-99-1", {"z": 1}, "does not ask for z; it asks for x, y"),
        ("ex-99-1", {}, "it asks for x, y"),
    ],
)
def test_questions_that_nobody_asked(exercise, given, word, one_exercise):
    with pytest.raises(RecbalError, match=word):
        checks.check(exercise, **given)


def test_right_answers_are_recorded_for_their_keys(tmp_path, monkeypatch):
    file = tmp_path / "answers.jsonl"
    monkeypatch.setenv("RECBAL_CHECKS_RECORD", str(file))
    checks.check("ex-99-1", within=0.5, x=4, word="a b")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    made = answers.keys(lines, {})["ex-99-1"]
    assert made["x"]["step"] == 0.5
    assert checks.verdict("A  b", made["word"], "ex-99-1/word") == "right."


# ---- exercises of the chapters ----------------------------------------------------------


def calls_in_solutions(notebook) -> dict[str, set[str]]:
    """Exercise to the names that its solution checks."""
    found: dict[str, set[str]] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "solution" in cell["metadata"].get("tags", []):
            for call in student.check_calls(cell["source"]):
                exercise = ast.literal_eval(call.args[0])
                names = {word.arg for word in call.keywords} - {"within"}
                found.setdefault(exercise, set()).update(names)
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_solution_passes_through_the_check_of_its_exercise(chapter):
    notebook = read_notebook(NOTEBOOKS[CHAPTERS.index(chapter)])
    text = "\n".join(cell["source"] for cell in notebook["cells"])
    if "import check" not in text:
        pytest.skip("the exercises of this chapter have no checks yet")
    known = json.loads((checks.ANSWERS / f"{chapter[:2]}.json").read_text(encoding="utf-8"))
    labels = {part.split()[0] for part in text.split("{solution-start} ")[1:]}
    asked = calls_in_solutions(notebook)
    assert labels == set(asked)
    assert asked == {exercise: set(names) for exercise, names in known.items()}


def test_traps_belong_to_answers():
    traps = json.loads((ROOT / "tools" / "traps.json").read_text(encoding="utf-8"))
    for exercise, names in traps.items():
        known = json.loads((checks.ANSWERS / f"{exercise[3:5]}.json").read_text("utf-8"))
        for name, pairs in names.items():
            key, salt = known[exercise][name], f"{exercise}/{name}"
            for wrong, hint in pairs:
                assert checks.verdict(wrong, key, salt) == f"not yet. {hint}", (exercise, name)


# ---- the student's edition ----------------------------------------------------------------


def test_answer_cells_ask_for_what_the_solution_checks():
    cells = [
        new_markdown_cell("````{solution-start} ex-99-1\n````"),
        new_code_cell("# 2 + 2\nx = 4\n# A sum.\ncheck('ex-99-1', x=x, within=0.5)\nprint(x)"),
        new_code_cell("check('ex-99-1', y=x / 8)"),
        new_markdown_cell("So four.\n\n````{solution-end}\n````"),
    ]
    (cell,) = student.without_solutions(new_notebook(cells=cells)).cells
    assert cell.cell_type == "code"
    assert cell.source.splitlines()[0].startswith("# Your answer to ex-99-1")
    assert (
        '\n\n# A sum.\ncheck("ex-99-1", x=..., within=0.5)\ncheck("ex-99-1", y=...)' in cell.source
    )
    assert "2 + 2" not in cell.source
    assert "4" not in cell.source.replace("ex-99-1", "")
