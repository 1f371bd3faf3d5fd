"""The quiz after a part, from `book/quizzes/<part>.yml` to Markdown.

A file is a list of questions. Each has `ask`, `answers` (each with `text`, `why` and, once,
`right`) and `facts`: the claims on which the right answer stands, with limits for each.
"""

from pathlib import Path

import yaml
from common import ROOT, stop

QUIZZES = ROOT / "book" / "quizzes"
LETTERS = "ABCDEF"


def read(path: Path) -> list[dict]:
    """The questions of a file; stops in one line where one is malformed."""
    questions = yaml.safe_load(path.read_text(encoding="utf-8"))
    for number, question in enumerate(questions, start=1):
        answers = question.get("answers", [])
        right = sum(bool(answer.get("right")) for answer in answers)
        if not question.get("ask") or right != 1 or not all(a.get("why") for a in answers):
            stop(f"{path.name}: question {number} needs 'ask', one right answer, and each 'why'")
    return questions


def answer_block(letter: str, answer: dict) -> str:
    """A folded answer, which opens on what is right or wrong about it."""
    word = "Right." if answer.get("right") else "No."
    return f":::{{dropdown}} {letter}. {answer['text']}\n**{word}** {answer['why']}\n:::"


def markdown(questions: list[dict]) -> str:
    """All questions of a quiz; answers open without a script."""
    parts = []
    for number, question in enumerate(questions, start=1):
        parts.append(f"## Question {number}\n\n{question['ask']}")
        parts += [answer_block(*pair) for pair in zip(LETTERS, question["answers"], strict=False)]
    return "\n\n".join(parts)


def page(name: str) -> str:
    """The questions of one part as Markdown."""
    return markdown(read(QUIZZES / f"{name}.yml"))
