"""Training and test rows of any log: by time, by group or at random, copies on one side."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recbal_utils.errors import RecbalError

TEST_SHARE = 0.3
SHARES = (0.1, 0.5)  # between which a cut in time may move to find positives
LEAST_PER_SIDE = 20  # rows of the rarer class; judgement: below, no difference can be told


@dataclass(frozen=True)
class Split:
    """Which rows are for the test, and how they were chosen.

    Attributes
    ----------
    test : ndarray of bool, shape (n,)
    units : ndarray of shape (n,)
        What the bootstrap draws: group, user, or set of copies.
    unit : str
        What it is called, in the singular.
    how : str
        One sentence.
    by_group : str or None
        The column whose values were kept on one side.
    """

    test: np.ndarray
    units: np.ndarray
    unit: str
    how: str
    by_group: str | None = None


def split(log, *, test_share=TEST_SHARE, seed=0) -> Split:
    """Set about 30 % of the rows aside, more where positives are few, at their natural rate.

    With a time: the last rows; rows of one moment stay together. Else with a group or a user:
    whole groups, drawn at random. Else rows at random, those that agree in every column together.

    Raises
    ------
    RecbalError
        If the units are too few to divide.
    """
    units, unit = _units(log)
    if "time" in log.roles:
        test, since = _by_time(log, test_share)
        if len(np.unique(units[test])) < 2:
            units, unit = np.arange(len(test)), "row"
        share = f"the last {100 * test.mean():.0f} % of the rows"
        how = f"{share} by {log.roles['time']} ({since} and later)"
        return Split(test, units, unit, how)
    role = next((r for r in ("group", "user") if r in log.roles), None)
    test = _by_unit(units, log.y, _enough(log.y, test_share), seed)
    what = f"whole {log.roles[role]} values" if role else "rows"
    how = f"{100 * test.mean():.0f} % of the rows, {what} drawn at random"
    return Split(test, units, unit, how, by_group=log.roles.get(role))


def _units(log):
    """Codes of the units that are alike within, and what they are called."""
    for role in ("group", "user"):
        if role in log.roles:
            codes = pd.factorize(log.role(role))[0].astype(np.int64)
            alone = codes < 0  # rows without a group stand for themselves
            codes[alone] = codes.max() + 1 + np.arange(alone.sum())
            return codes, role
    return log.copies, "row"


def _by_time(log, share):
    time = log.role("time")
    codes, moments = pd.factorize(time, sort=True)
    if len(moments) < 2:
        raise RecbalError("The time column has one value in the rows read: a split needs two.")
    rare = log.y if log.y.mean() <= 0.5 else 1 - log.y
    seen = codes >= 0  # rows without a time count as early
    n = len(moments)
    rows = np.bincount(codes[seen], minlength=n)[::-1].cumsum()[::-1] / len(codes)
    positives = np.bincount(codes[seen], rare[seen], minlength=n)[::-1].cumsum()[::-1]
    enough = (positives >= LEAST_PER_SIDE) & (rare.sum() - positives >= LEAST_PER_SIDE)
    inside = (rows >= SHARES[0]) & (rows <= SHARES[1])
    penalty = np.abs(rows - share) + 10.0 * ~enough + 1.0 * ~inside
    cut = 1 + int(np.argmin(penalty[1:]))
    return codes >= cut, _moment(moments[cut])


def _moment(value):
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"
    return f"{float(value):g}" if isinstance(value, float | np.floating) else str(value)


def _enough(y, share) -> float:
    """The share, or where rows of the rarer class are few a larger one, up to a half."""
    rare = min(y.sum(), len(y) - y.sum())
    return max(share, LEAST_PER_SIDE / rare) if rare >= 2 * LEAST_PER_SIDE else share


def _by_unit(units, y, share, seed):
    """Draw units with and without a row of the rarer class apart, so that both sides get some."""
    rare = y if y.mean() <= 0.5 else 1 - y
    holds = np.bincount(units, rare) > 0
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(holds), dtype=bool)
    for kind in (holds, ~holds):
        members = rng.permutation(np.flatnonzero(kind))
        chosen[members[: round(share * len(members))]] = True
    test = chosen[units]
    if test.all() or not test.any():
        raise RecbalError(
            "The group (or user) has too few values to keep some for the test: leave it out."
        )
    return test
