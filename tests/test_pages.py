"""The prose pages in their sources: marks that must name something real."""

import json
import re

import pytest
import quiz
import tables
from conftest import NOTEBOOKS, ROOT, must, read_notebook
from quiz import QUIZZES

PAGES = [*(ROOT / "book").glob("*.md"), *(ROOT / "book" / "slides").glob("*.md")]
PAGES = sorted([*PAGES, *QUIZZES.glob("*.yml")])
CLAIM = re.compile(r"""\.claim\(\s*["']([a-z0-9-]+)["']""")


def claimed_ids() -> set[str]:
    """Ids of all claims that the notebooks' code makes."""
    code = [
        cell["source"]
        for path in NOTEBOOKS
        for cell in read_notebook(path)["cells"]
        if cell["cell_type"] == "code"
    ]
    return set(CLAIM.findall("\n".join(code)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pages_say_only_claims_that_are_made(page):
    said = {match["id"] for match in tables.CLAIMED.finditer(page.read_text(encoding="utf-8"))}
    assert said <= claimed_ids()
    assert "{claimed}" not in tables.CLAIMED.sub("", page.read_text(encoding="utf-8"))


# ---- quizzes ------------------------------------------------------------------------------


@pytest.fixture(params=sorted(QUIZZES.glob("*.yml")), ids=lambda path: path.stem)
def questions(request) -> list[dict]:
    return quiz.read(request.param)


def test_a_quiz_has_four_to_six_questions_with_choices(questions):
    assert 4 <= len(questions) <= 6
    for question in questions:
        assert 3 <= len(question["answers"]) <= len(quiz.LETTERS)
        first = [bool(answer.get("right")) for answer in question["answers"]]
        assert not all(first)


def test_the_right_answer_is_not_always_at_the_same_place(questions):
    places = [
        next(i for i, answer in enumerate(question["answers"]) if answer.get("right"))
        for question in questions
    ]
    assert len(set(places)) > 1


def holds(fact: dict, claim: dict) -> bool:
    """Whether all of a claim's band lies within the limits of a fact."""
    above, below = fact.get("above", -float("inf")), fact.get("below", float("inf"))
    return above < claim["low"] and claim["high"] < below


def test_facts_name_claims_and_limits(questions):
    facts = [fact for question in questions for fact in question["facts"]]
    assert facts
    assert {fact["claim"] for fact in facts} <= claimed_ids()
    assert all({"above", "below"} & set(fact) for fact in facts)


@pytest.mark.book
def test_right_answers_are_right(questions):
    claims = tables.claims_by_id()
    facts = [fact["claim"] for question in questions for fact in question["facts"]]
    must(set(facts) <= set(claims), "chapters are not executed; run 'make book' first")
    for question in questions:
        for fact in question["facts"]:
            assert holds(fact, claims[fact["claim"]]), (question["ask"], fact)


def test_facts_can_fail():
    claim = {"low": 1.5, "high": 2.5}
    assert holds({"above": 1}, claim)
    assert not holds({"above": 2}, claim)
    assert not holds({"above": 1, "below": 2}, claim)


def test_a_malformed_question_is_named(tmp_path, capsys):
    path = tmp_path / "bad.yml"
    answers = [{"text": "a", "why": "w"}, {"text": "b", "why": "w"}]
    path.write_text(json.dumps([{"ask": "?", "answers": answers, "facts": []}]))
    with pytest.raises(SystemExit):
        quiz.read(path)
    assert capsys.readouterr().err.startswith("bad.yml: question 1 needs")


def test_answers_fold_without_a_script():
    question = {"ask": "?", "answers": [{"text": "a", "why": "w", "right": True}]}
    text = quiz.markdown([question])
    assert ":::{dropdown} A. a\n**Right.** w\n:::" in text


# ---- the workshop kit ---------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_errors_page_knows_every_exercise(path):
    text = "\n".join(cell["source"] for cell in read_notebook(path)["cells"])
    if "import check" not in text:
        pytest.skip("the exercises of this chapter have no checks yet")
    page = (ROOT / "book" / "teaching_errors.md").read_text(encoding="utf-8")
    for chapter, number in re.findall(r"\{solution-start\} ex-(\d\d)-(\d)", text):
        assert f"| {int(chapter)}.{number} " in page


def test_routes_keep_their_minutes():
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    routes = page.split("## Three routes")[1].split("## `check`")[0]
    plans = re.findall(r"\| Minute .*\n\|[-:| ]+\n((?:\|.*\n)+)", routes)
    assert len(plans) == 4  # 90 minutes, half a day, and each of two days
    for plan in plans:
        minutes = [int(row.split("|")[1]) for row in plan.strip().split("\n")]
        assert minutes[0] == 0
        assert minutes == sorted(set(minutes))
