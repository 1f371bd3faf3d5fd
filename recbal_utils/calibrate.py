"""Probabilities after the training rate was changed: one shift of the log-odds, and its undoing.

`shift_log_odds` is the one operation; `prior_correction`, its inverse and `log_odds_shift` name
its uses. `calibration_intercept`, `calibration_slope` and `reliability_curve` ask whether
probabilities come true, `threshold_from_costs` says what to do with them.
"""

import numpy as np
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from recbal_utils import _bootstrap, _inputs, evaluate
from recbal_utils.errors import RecbalError

MAX_STEPS = 100
TOLERANCE = 1e-12
SMALLEST = np.finfo(np.float64).tiny


# --- one shift ------------------------------------------------------------------------------


def shift_log_odds(p, shift):
    """Add a constant to the log-odds of probabilities.

    Parameters
    ----------
    p : array-like of shape (n,), or float
        Probabilities in [0, 1]; 0 and 1 stay what they are.
    shift : float
        What is added to ln(p / (1 - p)), in nats; finite.

    Returns
    -------
    ndarray of shape (n,), or float
        Probabilities, in float64, with a relative error below 1e-12 however near 0; near 1, as
        exact as a float64 can be. Results below 1e-307 become 0.

    Raises
    ------
    RecbalError
        If p has more than one dimension, is missing or outside [0, 1], or the shift is not
        finite.
    """
    shift = _inputs.number(shift, "shift")
    if not np.isfinite(shift):
        raise RecbalError(f"shift must be finite; it is {shift}. Check the rates it comes from.")
    return expit(logit(_probabilities(p)) + shift)[()]


def prior_correction(p, keep_rate):
    """Undo the dropping of negatives: logit p = logit p_s + ln(keep_rate).

    Parameters
    ----------
    p : array-like of shape (n,), or float
        Probabilities p_s in [0, 1] of a model trained on every positive and a random share of
        the negatives (or on positives of weight 1 / keep_rate).
    keep_rate : float
        In (0, 1], the share of negatives kept.

    Returns
    -------
    ndarray of shape (n,), or float
        Probabilities at the natural rate.

    Raises
    ------
    RecbalError
        If keep_rate is outside (0, 1], or as for `shift_log_odds`.

    References
    ----------
    G. King and L. Zeng, "Logistic Regression in Rare Events Data", Political Analysis 2001;
    X. He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014;
    A. Dal Pozzolo et al., "Calibrating Probability with Undersampling for Unbalanced
    Classification", SSCI 2015. Their formulas are this one.

    Examples
    --------
    >>> round(float(prior_correction(0.0909918, 0.01)), 6)
    0.001
    """
    return shift_log_odds(p, np.log(_keep_rate(keep_rate)))


def inverse_prior_correction(p, keep_rate):
    """Return what a model of the down-sampled log says: logit p_s = logit p - ln(keep_rate).

    Parameters, result, errors: as for `prior_correction`, with p at the natural rate.
    """
    return shift_log_odds(p, -np.log(_keep_rate(keep_rate)))


def log_odds_shift(prior_from, prior_to):
    """Return the shift of the log-odds when the share of positives is changed at random.

    Parameters
    ----------
    prior_from, prior_to : float
        Shares of positives, in (0, 1).

    Returns
    -------
    float
        logit(prior_to) - logit(prior_from), in nats. From the training sample to the natural
        rate it is what `shift_log_odds` needs, whatever the mix of dropping, repeating and
        weighting classes.

    Raises
    ------
    RecbalError
        If a share lies outside (0, 1).
    """
    shares = {"prior_from": prior_from, "prior_to": prior_to}
    start, end = (_inputs.open_share(value, name) for name, value in shares.items())
    return float(logit(end) - logit(start))


# --- decisions ------------------------------------------------------------------------------


def threshold_from_costs(false_positive, false_negative):
    """Return the probability from which acting costs less than not acting.

    Parameters
    ----------
    false_positive, false_negative : float or array-like
        Costs of each error, above what the right decision costs for such a row; positive and
        finite, in one unit.

    Returns
    -------
    float or ndarray
        false_positive / (false_positive + false_negative), in (0, 1): act where p, at the
        natural rate, is at least this.

    Raises
    ------
    RecbalError
        If a cost is not positive and finite.

    References
    ----------
    C. Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001.

    Examples
    --------
    >>> threshold_from_costs(1, 19)
    0.05
    """
    costs = {"false_positive": false_positive, "false_negative": false_negative}
    wrong, missed = (_costs(value, name) for name, value in costs.items())
    scale = np.maximum(wrong, missed)
    threshold = (wrong / scale) / (wrong / scale + missed / scale)
    return float(threshold) if np.ndim(threshold) == 0 else threshold


# --- do probabilities come true? ------------------------------------------------------------


def calibration_intercept(y, p, sample_weight=None):
    """Return the shift of the log-odds that makes the mean prediction equal the observed rate.

    It is the maximum-likelihood intercept of a logistic regression of y on logit p with the slope
    fixed at 1: 0 for probabilities right on average, negative where they are too high. A model
    of a down-sampled log has ln(keep_rate) before its correction.

    Parameters
    ----------
    y : array-like of shape (n,)
        Outcomes, 0 or 1 (or bool).
    p : array-like of shape (n,)
        Probabilities in [0, 1]. Rows of 0 or 1 are beyond any shift.
    sample_weight : array-like of shape (n,), optional
        Weights of at least 0, not all 0.

    Returns
    -------
    float
        In nats.

    Raises
    ------
    RecbalError
        For input that `evaluate.log_loss` refuses, or where no shift can match the rate: one
        class only, or too many probabilities of exactly 0 or 1.
    """
    y, p, weight = _outcomes(y, p, sample_weight)
    rate = np.average(y, weights=weight)
    reach = (np.average(p == 1, weights=weight), np.average(p > 0, weights=weight))
    if not reach[0] < rate < reach[1]:
        raise RecbalError(
            f"No shift can bring the mean prediction to the observed rate {rate:g}: with these "
            f"probabilities of 0 and 1 it stays between {reach[0]:g} and {reach[1]:g}. Use rows "
            "of both classes, and probabilities inside (0, 1)."
        )
    return _matching_shift(logit(p), weight, rate)


def calibration_slope(y, p, sample_weight=None):
    """Return the slope of a logistic regression of y on logit p.

    1 is right; below 1 predictions are too bold (too far from the mean), above 1 too timid.

    Parameters
    ----------
    y, p, sample_weight
        As for `calibration_intercept`, every p inside (0, 1).

    Returns
    -------
    float

    Raises
    ------
    RecbalError
        As for `calibration_intercept`; also for a p of 0 or 1, and where some p separates the
        classes, so that no finite slope fits best.
    """
    y, p, weight = _outcomes(y, p, sample_weight)
    closed = (p == 0) | (p == 1)
    if closed.any():
        raise RecbalError(
            f"p is exactly 0 or 1 in {closed.sum()} rows, where log-odds are infinite: predict in "
            "float64, or clip p first."
        )
    return _slope(logit(p), y, weight)


def reliability_curve(
    y,
    p,
    groups,
    *,
    sample_weight=None,
    n_bins=20,
    strategy="mass",
    n_replicates=1000,
    confidence=0.95,
    seed=0,
):
    """Mean prediction and observed rate in each bin of p, with intervals of the rate.

    Parameters
    ----------
    y, p, sample_weight, n_bins, strategy
        As for `evaluate.reliability_curve`. Bins are cut once, on the whole sample.
    groups : array-like of shape (n,)
        The household of each row: a replicate draws as many groups as there are, with
        replacement.
    n_replicates : int, default 1000
        Number of bootstrap replicates; 0 leaves low and high NaN.
    confidence : float, default 0.95
        Share of the replicates between low and high.
    seed : int, default 0
        Seed of the draw.

    Returns
    -------
    pandas.DataFrame
        As `evaluate.reliability_curve` returns, with the columns low and high: the percentile
        interval of observed. A bin without a positive has the interval [0, 0], which says no more
        than that: for n independent rows its rate may be as high as 3 / n.

    Raises
    ------
    RecbalError
        As for `evaluate.reliability_curve`; also if a group is missing or there are fewer than 2,
        or the settings are out of range.
    """
    settings = {"n_bins": n_bins, "strategy": strategy}
    curve = evaluate.reliability_curve(y, p, sample_weight, **settings)
    _inputs.check_shapes(y=y, groups=groups)
    n_replicates = _inputs.count(n_replicates, "n_replicates", 0)
    seed = _inputs.count(seed, "seed", 0)
    if not 0 < confidence < 1:
        raise RecbalError(f"confidence must lie between 0 and 1; it is {confidence!r}.")
    y, p, weight = _outcomes(y, p, sample_weight)
    units = _units(groups)
    bins = evaluate._bins(p, None if sample_weight is None else weight, n_bins, strategy)
    draws = _rates(y, weight, bins, units, n_bins, n_replicates, seed)
    held = np.bincount(bins, weight, minlength=n_bins) > 0
    ends = [_bootstrap.interval(column, confidence) for column in draws[:, held].T]
    return curve.assign(**dict(zip(("low", "high"), np.transpose(ends), strict=True)))


# --- a classifier that corrects itself ------------------------------------------------------


class PriorCorrectedClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """A binary classifier trained on a down-sampled log, with probabilities at the natural rate.

    Its `decision_function` is the corrected log-odds, so scikit-learn's CalibratedClassifierCV,
    which prefers it over `predict_proba`, then calibrates on log-odds instead of on
    probabilities. For a classifier that is fitted already, wrap it in
    `sklearn.frozen.FrozenEstimator` and call fit, which then only notes the classes.

    Parameters
    ----------
    estimator : classifier
        With `predict_proba`; fitted as a clone. Its second class is the positive one.
    keep_rate : float
        In (0, 1], the share of negatives in the training rows given to `fit`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted one.
    classes_ : ndarray of shape (2,)
        Labels, the negative one first.
    """

    def __init__(self, estimator, keep_rate):
        self.estimator = estimator
        self.keep_rate = keep_rate

    def fit(self, X, y, **fit_params):
        """Fit a clone of the estimator to the down-sampled rows.

        Raises
        ------
        RecbalError
            If keep_rate is outside (0, 1], or y has other than two classes.
        """
        _keep_rate(self.keep_rate)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise RecbalError(
                f"Only binary classification is supported. The type of the target is {kind}: "
                "pass a y of two classes."
            )
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        self.classes_ = self.estimator_.classes_
        if len(self.classes_) != 2:
            raise RecbalError(
                f"The classifier knows {len(self.classes_)} class, and the correction needs a "
                "positive and a negative one: check how the training rows were selected."
            )
        if hasattr(self.estimator_, "n_features_in_"):
            self.n_features_in_ = self.estimator_.n_features_in_
        return self

    def decision_function(self, X):
        """Return corrected log-odds of the second class, shape (n,), in nats.

        Finite: a probability of exactly 0 counts as the smallest normal number.
        """
        check_is_fitted(self)
        p = np.asarray(self.estimator_.predict_proba(X), dtype=np.float64)
        negative, positive = np.log(np.maximum(p, SMALLEST)).T
        return positive - negative + np.log(self.keep_rate)

    def predict_proba(self, X):
        """Return probabilities at the natural rate, shape (n, 2)."""
        log_odds = self.decision_function(X)
        return np.column_stack([expit(-log_odds), expit(log_odds)])

    def predict(self, X):
        """Return the more probable class of each row at the natural rate, shape (n,)."""
        log_odds = self.decision_function(X)
        return self.classes_[(log_odds > 0).astype(int)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        tags.classifier_tags.multi_class = False
        return tags


# --- how it is put together -----------------------------------------------------------------


def _keep_rate(keep_rate):
    number = _inputs.number(keep_rate, "keep_rate")
    if not 0 < number <= 1:
        raise RecbalError(
            f"keep_rate must lie in (0, 1]; it is {keep_rate!r}. It is the share of negatives "
            "kept, such as 0.01."
        )
    return number


def _costs(value, name):
    costs = np.asarray(value)
    if costs.dtype.kind not in "iuf" or not (np.isfinite(costs) & (costs > 0)).all():
        raise RecbalError(
            f"{name} must be a positive, finite cost; it is {value!r}. Where an error is free "
            "there is nothing to weigh: always, or never, act."
        )
    return costs.astype(np.float64)


def _probabilities(p):
    if np.ndim(p) > 1:
        raise RecbalError(
            f"p has shape {np.shape(p)}: pass the positive class alone, predict_proba(X)[:, 1]."
        )
    array = _inputs.numbers(p, "p")
    wrong = np.atleast_1d((array < 0) | (array > 1))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise RecbalError(
            f"p must be probabilities in [0, 1]; {wrong.sum()} values are not, the first, at row "
            f"{first}, is {np.atleast_1d(array)[first]:g}. Pass log-odds through scipy's expit "
            "first."
        )
    return array


def _outcomes(y, p, sample_weight):
    _inputs.check_shapes(y=y, p=p, sample_weight=sample_weight)
    weight = _inputs.weights(sample_weight)
    y = _inputs.labels(y)
    return y, _probabilities(p), np.ones_like(y) if weight is None else weight


def _matching_shift(z, weight, rate):
    """Newton's method on logit(mean p), safe between two ends that enclose the root."""
    share = weight / weight.sum()
    finite = z[np.isfinite(z) & (weight > 0)]
    low, high = -finite.max() - 800, -finite.min() + 800
    shift = 0.0
    for _ in range(MAX_STEPS):
        p, q = expit(z + shift), expit(-z - shift)
        mean, rest = share @ p, share @ q
        error = np.log(mean) - np.log(rest) - logit(rate) if mean > 0 and rest > 0 else None
        too_high = mean > rate
        low, high = (low, shift) if too_high else (shift, high)
        slope = share @ (p * q) / (mean * rest) if error is not None else 0.0
        step = shift - error / slope if slope > 0 else np.nan
        if not low <= step <= high:
            step = (low + high) / 2
        if abs(step - shift) <= TOLERANCE * (1 + abs(shift)):
            return float(step)
        shift = step
    return float(shift)


def _slope(z, y, weight):
    """Fit y by expit(intercept + slope z): Newton's method, halving steps that go uphill."""
    z, y, weight = (column[weight > 0] for column in (z, y, weight))
    low, high = z[y == 0], z[y == 1]
    if not len(low) or not len(high):
        raise RecbalError("y holds one class only, so no slope fits: use a larger sample.")
    if low.max() <= high.min() or high.max() <= low.min():
        raise RecbalError(
            "Some value of p separates the classes, or p does not vary, so no finite slope fits "
            "best: use a larger sample."
        )
    centre, spread = np.average(z, weights=weight), z.std()
    design = np.column_stack([np.ones_like(z), (z - centre) / spread])
    start = np.array([logit(np.average(y, weights=weight)), 0.0])
    return float(_newton(design, y, weight / weight.sum(), start)[1] / spread)


def _newton(design, y, share, beta):
    def loss(beta):
        z = design @ beta
        return share @ (np.logaddexp(0, z) - y * z)

    for _ in range(MAX_STEPS):
        p = expit(design @ beta)
        curvature = (design * (share * p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature, design.T @ (share * (y - p)))
        before = loss(beta)
        while loss(beta + step) > before + TOLERANCE and np.abs(step).max() > TOLERANCE:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() <= TOLERANCE * (1 + np.abs(beta).max()):
            break
    return beta


def _units(groups):
    units = _inputs.units(groups, "groups")
    if units.n < 2:
        raise RecbalError(
            "All rows are of one group, so a bootstrap has nothing to draw from: pass groups "
            "with at least 2 ids."
        )
    return units


def _rates(y, weight, bins, units, n_bins, n_replicates, seed):
    """Return draws of the observed rate of each bin, shape (n_replicates, n_bins)."""
    cells = units.codes * n_bins + bins
    shape = (units.n, n_bins)
    total, positive = (
        np.bincount(cells, values, minlength=units.n * n_bins).reshape(shape)
        for values in (weight, weight * y)
    )
    chunk = max(1, _bootstrap.CHUNK_CELLS // units.n)
    parts = [np.empty((0, n_bins))]
    for drawn in _bootstrap.draw_weights(units.n, n_replicates, seed, chunk):
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((drawn @ positive) / (drawn @ total))
    return np.concatenate(parts)
