"""What would another policy have earned? Estimates from a log that records its propensities.

A row of the log is one choice: what was shown, with what probability (`logging`), and the reward.
With the probability that the new policy would have shown the same (`target`), the weight of the
row is target / logging. `ips`, `snips` and `doubly_robust` estimate the new policy's mean reward;
`overlap` says whether the log can carry an answer, and `estimate` refuses where it cannot.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

METHODS = ("ips", "snips", "dr")
LEAST_ROWS = 1000  # effective rows, and effective rewarded rows, that `estimate` asks for
LEAST_REWARDED = 10


class OverlapError(RecbalError):
    """The log of one policy cannot tell what the other would earn."""


@dataclass(frozen=True)
class Estimate:
    """The estimated mean reward of a policy, with its interval.

    Parameters
    ----------
    value, low, high : float
        In units of the reward.
    method : str
    effective_rows, effective_rewarded : float
        As in `overlap`.
    """

    value: float
    low: float
    high: float
    method: str
    effective_rows: float
    effective_rewarded: float


def weights(target, logging) -> np.ndarray:
    """Return target / logging for each row.

    Parameters
    ----------
    target, logging : array-like of shape (n,)
        Probability that the new and that the logging policy shows what was shown; in [0, 1] and
        in (0, 1].

    Raises
    ------
    RecbalError
        If shapes differ or a probability is out of range.
    """
    _inputs.check_shapes(target=target, logging=logging)
    target, logging = _inputs.numbers(target, "target"), _inputs.numbers(logging, "logging")
    for name, p, wrong in (
        ("target", target, (target < 0) | (target > 1)),
        ("logging", logging, (logging <= 0) | (logging > 1)),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise RecbalError(
                f"{name} holds {int(wrong.sum())} values that are no probability of something "
                f"shown, the first in row {row}: {p[row]:g}."
            )
    return target / logging


def effective_sample_size(weight) -> float:
    """Rows of equal weight that would carry as much: (sum of w) squared over sum of w squared.

    Parameters
    ----------
    weight : array-like of shape (n,)
        At least 0.

    Returns
    -------
    float
        From 1 to n; 0 if all weights are 0.

    References
    ----------
    L. Kish, *Survey Sampling*, Wiley 1965.
    """
    weight = _checked_weights(weight)
    square = weight @ weight
    return float(weight.sum() ** 2 / square) if square > 0 else 0.0


def overlap(reward, weight) -> pd.Series:
    """Say how much of a log speaks of the new policy.

    Parameters
    ----------
    reward : array-like of shape (n,)
        Finite, at least 0: clicks, or earnings.
    weight : array-like of shape (n,)
        From `weights`.

    Returns
    -------
    pandas.Series
        `rows`; `mean_weight` (1 but for chance, if propensities are right and the logging policy
        may show all that the new one shows); `largest_share` (of the total weight, in one row);
        `effective_rows`; `rewarded` (rows with a reward); `effective_rewarded` (the effective
        sample size of weight times reward).
    """
    reward, weight = _checked(reward, weight)
    total = weight.sum()
    return pd.Series(
        {
            "rows": len(weight),
            "mean_weight": weight.mean(),
            "largest_share": weight.max() / total if total > 0 else 1.0,
            "effective_rows": effective_sample_size(weight),
            "rewarded": float((reward > 0).sum()),
            "effective_rewarded": effective_sample_size(weight * reward),
        }
    )


def ips(reward, weight) -> float:
    """Inverse propensity scoring: the mean of weight times reward.

    Unbiased if propensities are right, and noisy where weights are large.

    References
    ----------
    D. G. Horvitz and D. J. Thompson, JASA 47 (1952), 663-685.
    """
    reward, weight = _checked(reward, weight)
    return float(np.mean(weight * reward))


def snips(reward, weight) -> float:
    """Self-normalised: the sum of weight times reward over the sum of weights.

    Slightly biased in small logs; never outside the range of the rewards.

    References
    ----------
    A. Swaminathan and T. Joachims, "The Self-Normalized Estimator for Counterfactual Learning",
    NeurIPS 2015.
    """
    reward, weight = _checked(reward, weight)
    if not weight.any():
        raise OverlapError("All weights are 0: the new policy shows nothing that is in the log.")
    return float(weight @ reward / weight.sum())


def doubly_robust(reward, weight, predicted, predicted_target) -> float:
    """A model's answer, corrected by the weighted errors it makes on the log.

    Right on average if the propensities are right or the model is.

    Parameters
    ----------
    reward, weight
        As for `overlap`.
    predicted : array-like of shape (n,)
        The model's reward for what was shown. Predict rows that the model did not learn from.
    predicted_target : array-like of shape (n,)
        The model's reward for what the new policy would show: its mean over that policy's choices.

    References
    ----------
    M. Dudík, J. Langford and L. Li, "Doubly Robust Policy Evaluation and Learning", ICML 2011.
    """
    return float(np.mean(_contributions("dr", reward, weight, predicted, predicted_target)[0]))


def estimate(
    reward,
    weight,
    *,
    method: str = "snips",
    predicted=None,
    predicted_target=None,
    groups=None,
    confidence: float = 0.95,
    least_rows: float = LEAST_ROWS,
    least_rewarded: float = LEAST_REWARDED,
) -> Estimate:
    """Estimate the new policy's mean reward with an interval, or refuse.

    Parameters
    ----------
    reward, weight
        As for `overlap`.
    method : {"ips", "snips", "dr"}
    predicted, predicted_target
        As for `doubly_robust`, which needs them.
    groups : array-like of shape (n,), optional
        The household or user of each row, where rows of one are alike.
    confidence : float in (0, 1), default .95
    least_rows, least_rewarded : float
        Fewest effective rows and effective rewarded rows to answer from; 0 answers always.

    Returns
    -------
    Estimate
        The interval is that of the logarithm where the estimate is above 0 and not "dr", so it
        stays above 0; it comes from the linearised contributions of rows (or groups).

    Raises
    ------
    OverlapError
        If too few effective rows remain, or the weights do not average to 1.
    RecbalError
        If input is not as described.
    """
    if method not in METHODS:
        raise RecbalError(f"method is {method!r}; choose one of {', '.join(METHODS)}.")
    found = overlap(reward, weight)
    _refuse(found, _checked_weights(weight), least_rows, least_rewarded)
    rows, centre = _contributions(method, reward, weight, predicted, predicted_target)
    se = _standard_error(rows - centre, groups)
    low, high = _interval(centre, se, confidence, method)
    enough = float(found["effective_rows"]), float(found["effective_rewarded"])
    return Estimate(centre, float(low), float(high), method, *enough)


def _refuse(found, weight, least_rows, least_rewarded):
    if found["effective_rows"] < least_rows:
        raise OverlapError(
            f"The {found['rows']:,.0f} rows count as {found['effective_rows']:,.0f} under the new "
            f"policy, and {least_rows:g} are needed: log more, or explore more."
        )
    if found["effective_rewarded"] < least_rewarded:
        raise OverlapError(
            f"The {found['rewarded']:,.0f} rewarded rows count as "
            f"{found['effective_rewarded']:,.0f} under the new policy, and {least_rewarded:g} are "
            "needed: log more, or explore more."
        )
    off = abs(found["mean_weight"] - 1) / max(weight.std() / np.sqrt(len(weight)), 1e-12)
    if least_rows and off > 5:
        raise OverlapError(
            f"The weights average to {found['mean_weight']:.2f}, which chance does not explain: "
            "propensities are wrong, or the log never shows what the new policy shows."
        )


def _contributions(method, reward, weight, predicted, predicted_target):
    """What each row adds, linearised, and the estimate: the mean of it."""
    reward, weight = _checked(reward, weight)
    if method == "ips":
        rows = weight * reward
    elif method == "snips":
        value = snips(reward, weight)
        rows = value + weight * (reward - value) / weight.mean()
    else:
        if predicted is None or predicted_target is None:
            raise RecbalError("dr needs predicted and predicted_target: a model's rewards.")
        _inputs.check_shapes(reward=reward, predicted=predicted, predicted_target=predicted_target)
        predicted = _inputs.numbers(predicted, "predicted")
        expected = _inputs.numbers(predicted_target, "predicted_target")
        rows = expected + weight * (reward - predicted)
    return rows, float(rows.mean())


def _standard_error(deviation, groups) -> float:
    n = len(deviation)
    if groups is not None:
        _inputs.check_shapes(deviation=deviation, groups=np.asarray(groups))
        units = _inputs.units(groups, "groups")
        deviation = np.bincount(units.codes, deviation, minlength=units.n)
    m = len(deviation)
    if m < 2:
        raise RecbalError("An interval needs at least 2 rows (or groups).")
    return float(np.sqrt(m / (m - 1) * (deviation @ deviation)) / n)


def _interval(value, se, confidence, method):
    if not 0 < confidence < 1:
        raise RecbalError(f"confidence must lie between 0 and 1; it is {confidence!r}.")
    z = norm.ppf((1 + confidence) / 2)
    if method == "dr" or value <= 0:
        return value - z * se, value + z * se
    factor = np.exp(z * se / value)
    return value / factor, value * factor


def _checked(reward, weight):
    _inputs.check_shapes(reward=reward, weight=weight)
    reward = _inputs.numbers(reward, "reward")
    if (reward < 0).any():
        raise RecbalError("reward must be 0 or more in every row: clicks, or earnings.")
    return reward, _checked_weights(weight)


def _checked_weights(weight) -> np.ndarray:
    _inputs.check_shapes(weight=weight)
    weight = _inputs.numbers(weight, "weight")
    if (weight < 0).any():
        raise RecbalError("weight must be 0 or more in every row: target over logging.")
    return weight
