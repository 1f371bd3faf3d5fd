"""Tell a learner whether the result of an exercise is right, without giving it away.

A chapter's solutions call the same `check` as its learners, so that the two cannot drift apart.
The right values are kept as digests in `answers/<chapter's number>.json`, which
`tools/answers.py` writes from a run of the chapter.
"""

import json
import os
import re
from hashlib import blake2s
from numbers import Real
from pathlib import Path

import numpy as np

from recbal_utils.errors import RecbalError

ANSWERS = Path(__file__).resolve().parent / "answers"
_EXERCISE = re.compile(r"ex-(\d\d)-\d")
# What a wrong value often is, as the way from it to the right one.
_SLIPS = (
    (lambda x: -x, "The size is right, the sign is not."),
    (lambda x: 1 / x, "It is upside down: one divided by it would be right."),
    (lambda x: 1 - x, "That is the share of the others: one minus it would be right."),
    (lambda x: x / 100, "It is in percent; give it as a share."),
    (lambda x: 100 * x, "It is too small by a factor of a hundred."),
    (np.exp, "That is the logarithm of what is asked for."),
    (np.log, "The logarithm of it would be right."),
    (np.sqrt, "Its square root would be right."),
    (np.square, "Its square would be right."),
)


class CheckError(RecbalError):
    """A solution of the book does not pass the check of its exercise."""


def check(exercise, *, within=None, **answers):
    """Say of each answer whether it is right, and hint at what is wrong.

    The answers belong to the parameters that the notebook has when it is opened; with another
    seed the right values may differ.

    Parameters
    ----------
    exercise : str
        Label of the exercise, such as "ex-04-1".
    within : float, optional
        How far a number may lie from the right one. It is accepted up to there, and refused
        beyond twice that. By default about one per cent of the right value.
    **answers : float, int, str, bool or Ellipsis
        The answers by name. `...` stands for one not given yet.

    Raises
    ------
    RecbalError
        If there is no such exercise, or it does not ask for an answer of that name.
    CheckError
        If an answer is wrong while the environment variable RECBAL_CHECKS is "strict", as it is
        when the book is built.

    Examples
    --------
    >>> check("ex-04-1", constant=...)
    ex-04-1 constant: still empty.
    >>> check("ex-04-1", constant=4.605)
    ex-04-1 constant: not yet. The size is right, the sign is not.
    """
    if os.environ.get("RECBAL_CHECKS_RECORD"):
        _record(exercise, within, answers)
        return
    known = _answers_of(exercise)
    unknown = sorted(set(answers) - set(known))
    if unknown or not answers:
        raise RecbalError(
            f"{exercise} does not ask for {', '.join(unknown) or 'nothing'}; "
            f"it asks for {', '.join(known)}."
        )
    verdicts = {
        name: verdict(value, known[name], f"{exercise}/{name}") for name, value in answers.items()
    }
    for name, words in verdicts.items():
        print(f"{exercise} {name}: {words}")
    wrong = [f"{name} ({words})" for name, words in verdicts.items() if words != "right."]
    if wrong and os.environ.get("RECBAL_CHECKS") == "strict":
        raise CheckError(
            f"The solution of {exercise} fails its check: {'; '.join(wrong)} If the solution is "
            "right and has changed, run tools/answers.py on the chapter."
        )


def verdict(value, key, salt):
    """Return "right.", or what is wrong with a value, in a sentence or two.

    Parameters
    ----------
    value : object
        The answer.
    key : dict
        As made by `make_key`.
    salt : str
        Exercise and name of the answer, as given to `make_key`.
    """
    if value is ...:
        return "still empty."
    wants_number = key["step"] is not None
    if wants_number != _is_number(value):
        return f"not yet. A {'number' if wants_number else 'word'} is asked for."
    if not wants_number:
        return "right." if _digest(salt, _word(value)) == key["right"] else "not yet."
    value = float(value)
    if _meets(value, key["right"], key["step"], salt):
        return "right."
    for digest, hint in key["traps"]:
        if _meets(value, digest, key["step"], salt):
            return f"not yet. {hint}"
    return f"not yet. {_slip(value, key, salt)}".strip()


def make_key(right, salt, *, within=None, traps=()):
    """Make what `verdict` needs to know a right answer without containing it.

    Parameters
    ----------
    right : float, int, str or bool
        The right answer.
    salt : str
        Exercise and name of the answer.
    within : float, optional
        Tolerance of a number; one per cent of it by default, and 0.01 for zero.
    traps : sequence of (float, str)
        Wrong values that learners come to, and what to tell them.

    Returns
    -------
    dict
        "right" (a digest), "step" (None for words), "traps" (pairs of digest and hint).
    """
    if not _is_number(right):
        return {"right": _digest(salt, _word(right)), "step": None, "traps": []}
    right = float(right)
    step = float(within) if within else _one_per_cent(right)
    pairs = [[_digest(salt, _cell(wrong, step)), hint] for wrong, hint in traps]
    return {"right": _digest(salt, _cell(right, step)), "step": step, "traps": pairs}


def _slip(value, key, salt):
    if value == 0 or _meets(0.0, key["right"], key["step"], salt):
        return ""  # nothing leads from zero or to it
    with np.errstate(all="ignore"):
        for mend, hint in _SLIPS:
            if _meets(float(mend(value)), key["right"], key["step"], salt):
                return hint
    return ""


def _meets(value, digest, step, salt):
    if not np.isfinite(value):
        return False
    cell = _cell(value, step)
    return digest in {_digest(salt, near) for near in (cell - 1, cell, cell + 1)}


def _cell(value, step):
    return round(value / step)


def _one_per_cent(right):
    return float(f"{abs(right) / 100:.1g}") if right else 0.01


def _digest(salt, content):
    return blake2s(f"{salt}={content}".encode(), digest_size=8).hexdigest()


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _word(value):
    return " ".join(str(value).lower().split())


def _answers_of(exercise):
    match = _EXERCISE.fullmatch(exercise) if isinstance(exercise, str) else None
    path = ANSWERS / f"{match[1]}.json" if match else None
    known = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
    if exercise not in known:
        raise RecbalError(
            f"There is no exercise {exercise!r} to check: copy its label from the answer cell, "
            "such as 'ex-04-1'."
        )
    return known[exercise]


def _record(exercise, within, answers):
    """Add right answers, one a line, to the file that the maker of the book named."""
    plain = {
        name: value if isinstance(value, str) else np.asarray(value).item()
        for name, value in answers.items()
    }
    line = {"exercise": exercise, "within": within, "answers": plain}
    with open(os.environ["RECBAL_CHECKS_RECORD"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
