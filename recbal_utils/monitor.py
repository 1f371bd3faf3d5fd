"""Has the share of positives changed? From scores at once, from labels when they arrive.

Two detectors and one repair. `estimate_prior` and `prior_shift_test` need scores only, and
believe that nothing but the share of positives has changed. `shift_evidence` waits for labels and
believes less. `read_metrics` takes what they need from a running server. The repair is one shift
of the log-odds: `calibrate.shift_log_odds`, and on a running server `write_correction`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from scipy import optimize, stats
from scipy.special import expit, logit, logsumexp

from recbal_utils import _inputs, calibrate
from recbal_utils._atomic import replacing
from recbal_utils.errors import RecbalError

SHIFTS = (-1.0, -0.5, -0.25, -0.125, 0.125, 0.25, 0.5, 1.0)
LARGEST = 700.0  # log-odds that an exponential still holds
EDGE = 1e-12  # estimates of a share stay this far from 0 and 1


@dataclass(frozen=True)
class PriorShift:
    """What scores without labels say of the share of positives.

    Attributes
    ----------
    prior : float
        The most likely share of positives, in (0, 1).
    log_odds_shift : float
        What corrects the probabilities to it, in nats; for `calibrate.shift_log_odds`.
    statistic : float
        Squared score over its variance; about chi-square with 1 degree of freedom without shift.
    p_value : float
    """

    prior: float
    log_odds_shift: float
    statistic: float
    p_value: float


def estimate_prior(p, prior, sample_weight=None):
    """Return the most likely share of positives among unlabelled rows.

    Parameters
    ----------
    p : array-like of shape (n,)
        Probabilities in [0, 1] that are right where positives have the share `prior`.
    prior : float
        In (0, 1).
    sample_weight : array-like of shape (n,), optional
        Counts of rows, such as of a histogram.

    Returns
    -------
    float
        In [1e-12, 1 - 1e-12]. It is where the expectation-maximisation of Saerens et al. ends: the
        likelihood is concave in the share, so its slope has one zero, found here by bracketing;
        with rare positives their iteration needs thousands of steps.

    Raises
    ------
    RecbalError
        If p is not probabilities, is empty, or prior lies outside (0, 1).

    References
    ----------
    M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the Outputs of a Classifier to New a
    Priori Probabilities: A Simple Procedure", Neural Computation 14(1), 2002.
    """
    p, weight, prior = _scores(p, prior, sample_weight)
    ratio = _likelihood_gain(p, prior)

    def slope(share):
        return weight @ (ratio / (1 + share * ratio))

    if slope(EDGE) <= 0:
        return EDGE
    if slope(1 - EDGE) >= 0:
        return 1 - EDGE
    return float(optimize.brentq(slope, EDGE, 1 - EDGE, xtol=1e-15, rtol=1e-13))


def prior_shift_test(p, prior, groups=None, sample_weight=None):
    """Test, from scores alone, whether the share of positives is still `prior`.

    Parameters
    ----------
    p, prior, sample_weight
        As for `estimate_prior`.
    groups : array-like of shape (n,), optional
        Visit or household of each row, whose rows are alike. Every row alone by default.

    Returns
    -------
    PriorShift

    Raises
    ------
    RecbalError
        As for `estimate_prior`, or if all rows are of one group.

    Notes
    -----
    The test compares the mean of p with the prior, with the variance between groups. It cannot
    tell a changed share of positives from changed features: if better candidates are shown, mean
    p rises rightly, no correction is due, and this test still rejects. Look at `drift` beside it,
    and wait for labels where the two speak together.

    The score test is one step of the likelihood-ratio test of Saerens et al. (2002), and needs
    no independence within groups.
    """
    scores, weight, start = _scores(p, prior, sample_weight)
    _inputs.check_shapes(p=p, groups=groups)
    units = _inputs.units(np.arange(len(scores)) if groups is None else groups, "groups")
    if units.n < 2:
        raise RecbalError("All rows are of one group, so there is no variance to test against.")
    slopes = weight * (scores - start)
    sums = np.bincount(units.codes, slopes)
    statistic = float(sums.sum() ** 2 / np.sum(sums**2)) if sums.any() else 0.0
    estimate = estimate_prior(p, prior, sample_weight)
    shift = calibrate.log_odds_shift(start, estimate)
    return PriorShift(estimate, shift, statistic, float(stats.chi2.sf(statistic, 1)))


def shift_evidence(y, p, shifts=SHIFTS, power=1.0):
    """Evidence, label by label, that the log-odds of p are shifted.

    A bettor who believes in a shift multiplies the stake, row after row, by the likelihood of the
    label under the shift over the one under p. The result is the mean stake over `shifts`. If p is
    right, it exceeds 1 / alpha at any time with probability alpha at most (Ville's inequality),
    so one may look after every label.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels, 0 or 1, in the order of their arrival.
    p : array-like of shape (n,)
        The probabilities that were answered.
    shifts : sequence of float
        Shifts of the log-odds to bet on, in nats, not 0.
    power : float in (0, 1], default 1
        Below 1 stakes are raised to it, which lowers the evidence. The bound needs labels that are
        independent given p; where those of a visit come together, take 1 / `overdispersion`.

    Returns
    -------
    ndarray of shape (n,)
        ln of the mean stake after each label.

    Raises
    ------
    RecbalError
        For input that `evaluate.log_loss` refuses, a shift of 0, or a power outside (0, 1].

    References
    ----------
    A. Ramdas, P. Grünwald, V. Vovk and G. Shafer, "Game-Theoretic Statistics and Safe
    Anytime-Valid Inference", Statistical Science 2023.
    """
    _inputs.check_shapes(y=y, p=p)
    z = np.clip(logit(calibrate._probabilities(p)), -LARGEST, LARGEST)
    y = _inputs.labels(y)
    shifts = np.asarray(shifts, dtype=np.float64)
    if shifts.ndim != 1 or not shifts.size or not (np.isfinite(shifts) & (shifts != 0)).all():
        raise RecbalError("shifts must be finite numbers other than 0, such as (-0.5, 0.5).")
    if not 0 < power <= 1:
        raise RecbalError(f"power must lie in (0, 1]; it is {power!r}.")
    stakes = [power * np.cumsum(_log_ratio(y, z, shift)) for shift in shifts]
    return logsumexp(stakes, axis=0) - np.log(len(shifts))


def overdispersion(y, p, groups):
    """Return how much more the purchases of a group vary than independent rows would.

    Parameters
    ----------
    y, p : array-like of shape (n,)
        Labels and probabilities, right on average: of a time without shift.
    groups : array-like of shape (n,)
        Visit or household of each row.

    Returns
    -------
    float
        sum over groups of (sum of y - p) squared, over the sum of p (1 - p); at least 1. With
        `power` 1 over this, `shift_evidence` behaves as for independent rows: for a shift d the
        log evidence is near power (d S - d² V / 2), S of variance overdispersion times V.

    Raises
    ------
    RecbalError
        For input that `evaluate.log_loss` refuses, a missing group, or p of 0 and 1 only.
    """
    _inputs.check_shapes(y=y, p=p, groups=groups)
    y, p = _inputs.labels(y), calibrate._probabilities(p)
    expected = np.sum(p * (1 - p))
    if expected == 0:
        raise RecbalError("Every p is 0 or 1, so that nothing is left to vary.")
    sums = np.bincount(_inputs.units(groups, "groups").codes, y - p)
    return max(1.0, float(np.sum(sums**2) / expected))


def first_alarm(evidence, false_alarms=0.01):
    """Return the number of labels after which `shift_evidence` exceeds its bound, or None."""
    if not 0 < false_alarms < 1:
        raise RecbalError(f"false_alarms must lie in (0, 1); it is {false_alarms!r}.")
    above = np.asarray(evidence) > -np.log(false_alarms)
    return int(np.argmax(above)) + 1 if above.any() else None


def write_correction(path, log_odds_shift, why):
    """Write the file a running server takes its correction from.

    Parameters
    ----------
    path : str or Path
        What `serve` was given as its correction file.
    log_odds_shift : float
        To be added to the model's log-odds, in nats, from now on; 0 takes a correction back. It
        replaces an earlier one.
    why : str
        For whoever reads the file.

    Raises
    ------
    RecbalError
        If the shift is not finite, or the file cannot be written.
    """
    shift = _inputs.number(log_odds_shift, "log_odds_shift")
    if not np.isfinite(shift):
        raise RecbalError(f"log_odds_shift must be finite; it is {shift}.")
    text = json.dumps({"log_odds_shift": shift, "why": str(why)})
    try:
        with replacing(Path(path)) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecbalError(f"Cannot write the correction: {error.strerror}.") from None


# --- what a server tells --------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Counts of a server's /metrics; subtract those of an earlier visit for what is new.

    Attributes
    ----------
    score_ends : ndarray of shape (n_bins,)
        Upper ends of the bins of log-odds, the last infinite.
    score_counts : ndarray of shape (n_bins,)
    feature_counts : dict of str to dict of int to float
        Rows in each bin of each feature.
    """

    score_ends: np.ndarray
    score_counts: np.ndarray
    feature_counts: dict

    def __sub__(self, earlier):
        """Return the counts since `earlier`."""
        features = {
            name: {i: n - earlier.feature_counts.get(name, {}).get(i, 0) for i, n in bins.items()}
            for name, bins in self.feature_counts.items()
        }
        return Seen(self.score_ends, self.score_counts - earlier.score_counts, features)

    def features(self, reference):
        """Return counts in the bins of `reference`, for `drift.stability`."""
        return tuple(
            np.array([self.feature_counts.get(name, {}).get(i, 0) for i in range(len(count))])
            for name, count in zip(reference.names, reference.counts, strict=True)
        )

    def scores(self):
        """Return the middle of each bin as a probability, and its count: p, sample_weight."""
        ends = self.score_ends[:-1]
        width = ends[1] - ends[0]
        middle = np.append(ends, ends[-1] + width) - width / 2
        return expit(middle), self.score_counts


def read_metrics(text):
    """Read the text that a server's /metrics answers.

    Raises
    ------
    RecbalError
        If it holds no scores.
    """
    buckets, features = [], {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "recbal_score_log_odds_bucket":
                buckets.append((float(sample.labels["le"]), sample.value))
            if sample.name == "recbal_feature_rows_total":
                bins = features.setdefault(sample.labels["feature"], {})
                bins[int(sample.labels["bin"])] = sample.value
    if not buckets:
        raise RecbalError("The text holds no recbal_score_log_odds: pass a server's /metrics.")
    ends, totals = np.array(sorted(buckets)).T
    return Seen(ends, np.diff(totals, prepend=0), features)


# --- how it is put together -----------------------------------------------------------------


def _log_ratio(y, z, shift):
    """ln of the likelihood of y under log-odds z + shift over the one under z."""
    return y * shift - np.logaddexp(0, z + shift) + np.logaddexp(0, z)


def _likelihood_gain(p, prior):
    """Return r in: likelihood of a row ~ 1 + share * r."""
    positive, negative = p / prior, (1 - p) / (1 - prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (positive - negative) / negative


def _scores(p, prior, sample_weight):
    _inputs.check_shapes(p=p, sample_weight=sample_weight)
    prior = _inputs.open_share(prior, "prior")
    scores = np.clip(calibrate._probabilities(p), 0, 1 - np.finfo(np.float64).epsneg)
    weight = _inputs.weights(sample_weight)
    return scores, np.ones_like(scores) if weight is None else weight, prior
