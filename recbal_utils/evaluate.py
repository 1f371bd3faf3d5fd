"""Metrics for rare conversions, with intervals that respect households.

Ranking (`roc_auc`, `average_precision`, and within a visit `ndcg_at_k`, `recall_at_k`),
probabilities (`log_loss`, `normalised_entropy`, `ratio`, `expected_calibration_error`,
`reliability_curve`), and all of them with bootstrap intervals (`report`, `report_by`,
`difference`; the draws themselves by `replicates`).

Rows are matched by position, as in scikit-learn; pandas Series whose indexes differ are refused.
"""

import re

import numpy as np
import pandas as pd

from recbal_utils import _bootstrap, _inputs, _tables, _visits
from recbal_utils.errors import RecbalError

RANKING_METRICS = ("roc_auc", "average_precision")
PROBABILITY_METRICS = ("log_loss", "normalised_entropy", "ratio")
CALIBRATION_METRICS = ("expected_calibration_error", "relative_calibration_error")
ROW_METRICS = RANKING_METRICS + PROBABILITY_METRICS + CALIBRATION_METRICS
VISIT_METRICS = ("ndcg_at_10", "recall_at_50")
_VISIT_NAME = re.compile(r"(ndcg|recall)_at_([1-9][0-9]*)")
_VISIT_FUNCTIONS = {"ndcg": _visits.ndcg, "recall": _visits.recall}


# --- one metric of one sample ---------------------------------------------------------------


def roc_auc(y, p, sample_weight=None):
    """Area under the ROC curve: the share of (positive, negative) pairs ranked rightly.

    Parameters
    ----------
    y : array-like of shape (n,)
        Outcomes, 0 or 1 (or bool).
    p : array-like of shape (n,)
        Scores or probabilities, finite.
    sample_weight : array-like of shape (n,), optional
        Weights of at least 0; a weight of 2 counts as two equal rows.

    Returns
    -------
    float
        In [0, 1]; .5 is chance. A tie counts one half. Exact at every score, however rare
        positives are.

    Raises
    ------
    RecbalError
        If shapes or the indexes of Series differ, values are not finite or not 0/1, or there is
        only one class.

    Examples
    --------
    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    return _row_metric("roc_auc", y, p, sample_weight)


def average_precision(y, p, sample_weight=None):
    """Average precision: the mean, over positives, of the precision at their score.

    A scorer that knows nothing has the prevalence as its expected value, so average precision
    does not compare across base rates. Tied rows stand or fall together, as in scikit-learn.

    Parameters, errors: as for `roc_auc`.

    Returns
    -------
    float
        In (0, 1].
    """
    return _row_metric("average_precision", y, p, sample_weight)


def log_loss(y, p, sample_weight=None):
    """Mean log loss in nats.

    Parameters
    ----------
    y, sample_weight
        As for `roc_auc`; here one class alone is allowed.
    p : array-like of shape (n,)
        Probabilities in [0, 1]; clipped to [2.2e-16, 1 - 2.2e-16], as scikit-learn does.

    Returns
    -------
    float
        At least 0; lower is better.

    Raises
    ------
    RecbalError
        If shapes differ, values are not finite, y is not 0/1 or p is outside [0, 1].
    """
    return _row_metric("log_loss", y, p, sample_weight)


def normalised_entropy(y, p, sample_weight=None):
    """Mean log loss divided by the entropy of the observed rate.

    1 is what knowing only the rate gives; lower is better; above 1 is worse than knowing only
    the rate. Parameters and errors: as for `log_loss`; one class alone raises too, as its entropy
    is 0.

    Returns
    -------
    float
        At least 0.

    References
    ----------
    X. He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.
    """
    return _row_metric("normalised_entropy", y, p, sample_weight)


def ratio(y, p, sample_weight=None):
    """Mean predicted probability divided by the observed rate.

    1 is right on average; 40 is 40 times too high. Parameters and errors: as for `log_loss`;
    a sample without a positive raises too.

    Returns
    -------
    float
        At least 0.
    """
    return _row_metric("ratio", y, p, sample_weight)


def expected_calibration_error(
    y, p, sample_weight=None, *, n_bins=20, strategy="mass", relative=False
):
    """Mean distance, over bins of p, between the mean prediction and the observed rate.

    Parameters
    ----------
    y, p, sample_weight
        As for `log_loss`.
    n_bins : int, default 20
        Number of bins; always state it beside the value.
    strategy : {"mass", "uniform"}, default "mass"
        "mass": bins of equal weight, cut at quantiles of p. Rows with equal p share a bin, so ties
        may leave fewer bins. "uniform": bins of equal width on [0, 1]; with rare positives nearly
        all rows fall into the first one, and the result repeats `ratio`.
    relative : bool, default False
        Divide by the observed rate.

    Returns
    -------
    float
        In [0, 1] unless relative. A constant prediction of the observed rate has 0: the metric
        does not reward telling rows apart. As a mean of distances it is above 0 by chance alone,
        even for true probabilities.

    Raises
    ------
    RecbalError
        As for `log_loss`; also for n_bins < 1, an unknown strategy, and relative without a
        positive.
    """
    name = "relative_calibration_error" if relative else "expected_calibration_error"
    return _row_metric(name, y, p, sample_weight, n_bins=n_bins, strategy=strategy)


def reliability_curve(y, p, sample_weight=None, *, n_bins=20, strategy="mass"):
    """Mean prediction and observed rate in each bin of p.

    Parameters, errors: as for `expected_calibration_error`.

    Returns
    -------
    pandas.DataFrame
        A row for each bin that holds rows, from the lowest p up, with the columns predicted,
        observed (both weighted means), n (rows) and weight (sum of weights).
    """
    _inputs.check_shapes(y=y, p=p, sample_weight=sample_weight)
    y = _inputs.labels(y)
    p = _checked_predictions(y, p, "p", CALIBRATION_METRICS)
    weight = _inputs.weights(sample_weight)
    bins = _bins(p, weight, n_bins, strategy)
    weight = np.ones_like(y) if weight is None else weight
    n = np.bincount(bins, minlength=n_bins)
    total = np.bincount(bins, weight, minlength=n_bins)
    held = total > 0
    sums = {"predicted": p, "observed": y}
    columns = {
        name: np.bincount(bins, values * weight, minlength=n_bins)[held] / total[held]
        for name, values in sums.items()
    }
    return pd.DataFrame({**columns, "n": n[held], "weight": total[held]}).rename_axis("bin")


def ndcg_at_k(y, p, visits, k=10, *, subset=None):
    """Normalised discounted cumulative gain of the first k places within a visit.

    A conversion on place r gains 1 / log2(r + 1); the sum is divided by its best possible value,
    and averaged over the visits with at least one conversion. Rows of a visit with equal scores
    share their places evenly: the result is the expected value under a random order of ties, so
    the order of rows does not matter.

    Parameters
    ----------
    y, p
        As for `roc_auc`.
    visits : array-like of shape (n,)
        The visit of each row, any ids.
    k : int, default 10
        Number of places, at least 1.
    subset : array-like of bool, shape (n,), optional
        Count as relevant only conversions of these rows; all rows are still ranked.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    RecbalError
        If shapes differ, values are not finite or not 0/1, a visit is missing, k < 1, or no visit
        has a relevant conversion.

    References
    ----------
    F. McSherry and M. Najork, "Computing Information Retrieval Performance Measures Efficiently
    in the Presence of Tied Scores", ECIR 2008.
    """
    return _visit_metric("ndcg", y, p, visits, k, subset)


def recall_at_k(y, p, visits, k=50, *, subset=None):
    """Share of a visit's conversions that stand on its first k places.

    Averaged over the visits with at least one conversion. Ties, parameters, result and errors: as
    for `ndcg_at_k`. With `subset` (the products of the tail, say) it is the recall of those
    conversions in the ranking of the whole visit, averaged over the visits that have one.
    """
    return _visit_metric("recall", y, p, visits, k, subset)


# --- all metrics with intervals -------------------------------------------------------------


def report(
    y,
    p,
    *,
    groups=None,
    visits=None,
    n_replicates=1000,
    confidence=0.95,
    seed=0,
    n_bins=20,
    metrics=None,
):
    """Metrics of one model with percentile bootstrap intervals.

    Pass the household of each row as `groups`: rows of one household are alike, so the intervals
    that come without it, over visits or single rows, are too narrow. A replicate draws as many
    households as there are, with replacement, and takes every row of a drawn household as often
    as it was drawn.

    Parameters
    ----------
    y : array-like of shape (n,)
        Outcomes, 0 or 1 (or bool), at the natural rate.
    p : array-like of shape (n,)
        Probabilities; with ranking metrics alone, any finite scores.
    groups : array-like of shape (n,), optional
        The household of each row, or whatever is drawn as one. Without it visits are drawn, and
        without visits single rows.
    visits : array-like of shape (n,), optional
        The visit of each row, for the metrics within a visit. A visit belongs to one group.
    n_replicates : int, default 1000
        Number of replicates; 0 leaves low and high NaN.
    confidence : float, default 0.95
        Share of the replicates between low and high.
    seed : int, default 0
        Seed of the draw. The same seed draws the same groups for any model.
    n_bins : int, default 20
        Bins of equal mass of the calibration errors; cut once, on the whole sample.
    metrics : list of str, optional
        Any of roc_auc, average_precision, log_loss, normalised_entropy, ratio,
        expected_calibration_error, relative_calibration_error, ndcg_at_<k>, recall_at_<k>.
        By default the first seven, and with visits also ndcg_at_10 and recall_at_50.

    Returns
    -------
    pandas.DataFrame
        Indexed by metric, columns value, low, high. Replicates in which a metric is undefined
        (no positive was drawn) do not count towards its interval. `attrs["unit"]` says what
        was drawn: "groups", "visits" or "rows".

    Notes
    -----
    Read the intervals of the calibration errors as upper bounds. Chance adds to a mean of
    distances, and a replicate adds its own chance to that of the sample: for a model that is
    nearly calibrated the whole interval can lie above the value.

    Raises
    ------
    RecbalError
        For input that a metric refuses, an unknown metric, a metric within visits without visits,
        a visit in two groups, fewer than 2 groups to draw, or settings out of range.
    """
    names = _metric_names(metrics, visits)
    sample = _Sample(y, groups, visits)
    tables = sample.tables(p, "p", names, n_bins)
    values = sample.values_and_draws(tables, n_replicates, seed)
    return sample.naming_unit(_frame(names, *values, confidence))


def difference(
    y,
    p_a,
    p_b,
    *,
    groups=None,
    visits=None,
    n_replicates=1000,
    confidence=0.95,
    seed=0,
    n_bins=20,
    metrics=None,
):
    """Metrics of model b minus those of model a, paired on the same replicates.

    Parameters
    ----------
    p_a, p_b : array-like of shape (n,)
        Predictions of the two models for the same rows.
    y, groups, visits, n_replicates, confidence, seed, n_bins, metrics
        As for `report`.

    Returns
    -------
    pandas.DataFrame
        Indexed by metric, columns value, low, high of the difference b - a; `attrs["unit"]` as
        in `report`.

    Raises
    ------
    RecbalError
        As for `report`.
    """
    names = _metric_names(metrics, visits)
    sample = _Sample(y, groups, visits)
    results = []
    for name, p in {"p_a": p_a, "p_b": p_b}.items():
        tables = sample.tables(p, name, names, n_bins)
        results.append(sample.values_and_draws(tables, n_replicates, seed))
    (value_a, draws_a), (value_b, draws_b) = results
    value = {name: value_b[name] - value_a[name] for name in names}
    draws = {name: draws_b[name] - draws_a[name] for name in names}
    return sample.naming_unit(_frame(names, value, draws, confidence))


def report_by(
    y,
    p,
    segments,
    *,
    groups=None,
    visits=None,
    n_replicates=1000,
    confidence=0.95,
    seed=0,
    n_bins=20,
    metrics=None,
):
    """Return `report` for each segment of rows (product tiers, kinds of household).

    Metrics over rows take the rows of the segment alone. Metrics within a visit rank the whole
    visit and count only the segment's conversions, so recall of the tail is measured in the list
    that shoppers get. All groups are drawn for every segment, so segments share their replicates.

    Parameters
    ----------
    segments : array-like of shape (n,)
        The segment of each row; a pandas categorical keeps its order.
    y, p, groups, visits, n_replicates, confidence, seed, n_bins, metrics
        As for `report`.

    Returns
    -------
    pandas.DataFrame
        Indexed by segment and metric, columns value, low, high. A metric that a segment leaves
        undefined (all its rows of one class) is NaN. `attrs["unit"]` as in `report`.

    Raises
    ------
    RecbalError
        As for `report`; also if a segment is missing.
    """
    names = _metric_names(metrics, visits)
    sample = _Sample(y, groups, visits)
    _inputs.check_shapes(y=y, segments=segments)
    codes, ids = _inputs.factorise(segments, "segments")
    frames = {}
    for code, segment in enumerate(ids):
        tables = sample.tables(p, "p", names, n_bins, subset=codes == code)
        values = sample.values_and_draws(tables, n_replicates, seed)
        frames[segment] = _frame(names, *values, confidence)
    return sample.naming_unit(pd.concat(frames, names=["segment"]))


def replicates(
    y, p, *, groups=None, visits=None, n_replicates=1000, seed=0, n_bins=20, metrics=None
):
    """Return the bootstrap draws behind `report`.

    With the same y, groups, visits and seed, row i of two results stands for the same households,
    so `replicates(y, p_b, ...) - replicates(y, p_a, ...)` are paired draws of a difference.

    Parameters, errors: as for `report`.

    Returns
    -------
    pandas.DataFrame
        n_replicates rows, a column for each metric; `attrs["unit"]` as in `report`.
    """
    names = _metric_names(metrics, visits)
    sample = _Sample(y, groups, visits)
    tables = sample.tables(p, "p", names, n_bins)
    _, draws = sample.values_and_draws(tables, n_replicates, seed)
    frame = pd.DataFrame({name: draws[name] for name in names}).rename_axis("replicate")
    return sample.naming_unit(frame)


# --- how it is put together -----------------------------------------------------------------


class _Sample:
    """Outcomes, the units that are drawn, and the visits; shared by all models and segments."""

    def __init__(self, y, groups, visits):
        _inputs.check_shapes(y=y, groups=groups, visits=visits)
        self.given_y = y
        self.unit = "rows" if visits is None else "visits"
        self.y = _inputs.labels(y)
        self.visits = None if visits is None else _inputs.units(visits, "visits")
        if groups is not None:
            self.unit = "groups"
            self.units = _inputs.units(groups, "groups")
        else:
            self.units = self.visits or _inputs.Units(np.arange(len(self.y)), len(self.y))
        if self.visits is not None:
            self.unit_of_visit = _unit_of_visit(self.visits, self.units)

    def naming_unit(self, frame):
        """Write into the frame what its replicates drew."""
        frame.attrs["unit"] = self.unit
        return frame

    def tables(self, p, p_name, names, n_bins, subset=None):
        """Return the tables of sums from which the named metrics follow."""
        p = _checked_predictions(self.given_y, p, p_name, names)
        y, row_p, units = self.y, p, self.units
        if subset is None:
            _check_classes(y, None, names)
        else:
            y, row_p = y[subset], p[subset]
            units = _inputs.Units(units.codes[subset], units.n)
        rows = _row_tables(y, row_p, None, units, names, n_bins)
        return rows + self._visit_tables(p, names, subset)

    def _visit_tables(self, p, names, subset):
        specs = [(name, *_visit_spec(name)) for name in names if _visit_spec(name)]
        if not specs:
            return []
        relevant = self.y == 1 if subset is None else (self.y == 1) & subset
        blocks = _visits.relevant_blocks(relevant, p, self.visits)
        return [
            _tables.visit_table(name, function(blocks, k), self.unit_of_visit, self.units.n)
            for name, function, k in specs
        ]

    def values_and_draws(self, tables, n_replicates, seed):
        """Return {metric: value} of the sample and {metric: draws}."""
        n_replicates = _inputs.count(n_replicates, "n_replicates", 0)
        seed = _inputs.count(seed, "seed", 0)
        if n_replicates and self.units.n < 2:
            raise RecbalError(
                "All rows are of one group, so a bootstrap has nothing to draw from: pass groups "
                "with at least 2 ids, or n_replicates=0."
            )
        everything = np.ones((1, self.units.n))
        value = {name: v[0] for table in tables for name, v in table.values(everything).items()}
        return value, _bootstrap.replicate(tables, self.units.n, n_replicates, seed)


def _row_metric(name, y, p, sample_weight, n_bins=20, strategy="mass"):
    _inputs.check_shapes(y=y, p=p, sample_weight=sample_weight)
    y = _inputs.labels(y)
    p = _checked_predictions(y, p, "p", [name])
    weight = _inputs.weights(sample_weight)
    _check_classes(y, weight, [name])
    everything = _inputs.Units(np.zeros(len(y), dtype=np.int64), 1)
    (table,) = _row_tables(y, p, weight, everything, [name], n_bins, strategy)
    return float(table.values(np.ones((1, 1)))[name][0])


def _visit_metric(kind, y, p, visits, k, subset):
    _inputs.check_shapes(y=y, p=p, visits=visits, subset=subset)
    k = _inputs.count(k, "k", 1)
    y = _inputs.labels(y)
    p = _inputs.numbers(p, "p")
    relevant = y == 1 if subset is None else (y == 1) & _inputs.mask(subset)
    if not relevant.any():
        raise RecbalError(f"No visit has a relevant conversion, so {kind}_at_k is undefined.")
    blocks = _visits.relevant_blocks(relevant, p, _inputs.units(visits, "visits"))
    return float(np.nanmean(_VISIT_FUNCTIONS[kind](blocks, k)))


def _row_tables(y, p, weight, units, names, n_bins, strategy="mass"):
    """Return only the tables that the names need; ranking needs both classes."""
    tables = []
    if not set(names).isdisjoint(RANKING_METRICS) and 0 < y.sum() < len(y):
        tables.append(_tables.ranking_table(y, p, weight, units))
    if not set(names).isdisjoint(PROBABILITY_METRICS):
        tables.append(_tables.probability_table(y, p, weight, units))
    if not set(names).isdisjoint(CALIBRATION_METRICS):
        bins = _bins(p, weight, n_bins, strategy)
        tables.append(_tables.calibration_table(y, p, weight, units, bins, n_bins))
    return tables


def _checked_predictions(y, p, p_name, names):
    _inputs.check_shapes(y=y, **{p_name: p})
    p = _inputs.numbers(p, p_name)
    if not set(names).isdisjoint(PROBABILITY_METRICS + CALIBRATION_METRICS):
        _inputs.check_probabilities(p, p_name)
    return p


def _check_classes(y, weight, names):
    """Raise if a metric needs a class that the sample does not hold."""
    rate = np.average(y, weights=weight)
    undefined = [
        name
        for name in names
        if (rate == 0 and name not in {"log_loss", "expected_calibration_error"})
        or (rate == 1 and name in {*RANKING_METRICS, "normalised_entropy"})
    ]
    if undefined:
        verb, them = ("is", "it") if len(undefined) == 1 else ("are", "them")
        raise RecbalError(
            f"y holds only {'negatives' if rate == 0 else 'positives'}, so {', '.join(undefined)} "
            f"{verb} undefined: use a larger sample, or leave {them} out."
        )


def _bins(p, weight, n_bins, strategy):
    """Return the bin of each row; a bin holds its upper edge."""
    n_bins = _inputs.count(n_bins, "n_bins", 1)
    if strategy == "uniform":
        edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    elif strategy == "mass":
        edges = _equal_mass_edges(p, weight, n_bins)
    else:
        raise RecbalError(f"strategy must be 'mass' or 'uniform'; it is {strategy!r}.")
    return np.searchsorted(edges, p, side="left")


def _equal_mass_edges(p, weight, n_bins):
    """Edge i is the smallest p at or below which lie i / n_bins of the weight."""
    steps = np.arange(1, n_bins)
    if weight is None:
        places = -(-steps * len(p) // n_bins) - 1
        return np.unique(np.partition(p, places)[places]) if n_bins > 1 else np.empty(0)
    order = np.argsort(p)
    mass = np.cumsum(weight[order])
    return np.unique(p[order][np.searchsorted(mass, steps * mass[-1] / n_bins)])


def _unit_of_visit(visits, units):
    """Return the unit of each visit; raise if a visit has rows of two."""
    unit = np.zeros(visits.n, dtype=np.int64)
    unit[visits.codes] = units.codes
    strays = unit[visits.codes] != units.codes
    if strays.any():
        split = len(np.unique(visits.codes[strays]))
        raise RecbalError(
            f"{split} visits have rows of more than one group, the first at row "
            f"{np.argmax(strays)}: a visit belongs to one household, so make ids from household, "
            "store and week together."
        )
    return unit


def _metric_names(metrics, visits):
    """Return the metrics asked for, each once, or the default ones."""
    if metrics is None:
        return list(ROW_METRICS if visits is None else ROW_METRICS + VISIT_METRICS)
    names = list(dict.fromkeys([metrics] if isinstance(metrics, str) else metrics))
    unknown = [name for name in names if name not in ROW_METRICS and not _visit_spec(name)]
    if unknown or not names:
        raise RecbalError(
            f"metrics {unknown} are unknown: choose from {', '.join(ROW_METRICS)}, "
            "ndcg_at_<k>, recall_at_<k>."
        )
    if visits is None and any(_visit_spec(name) for name in names):
        raise RecbalError(f"metrics {names} rank within visits: pass visits, an id for each row.")
    return names


def _visit_spec(name):
    """Return (function, k) of a name such as ndcg_at_10, else None."""
    match = _VISIT_NAME.fullmatch(str(name))
    return (_VISIT_FUNCTIONS[match[1]], int(match[2])) if match else None


def _frame(names, value, draws, confidence):
    """Set values and intervals side by side; NaN where a metric is undefined."""
    if not 0 < confidence < 1:
        raise RecbalError(f"confidence must lie between 0 and 1; it is {confidence!r}.")
    nothing = np.empty(0)
    rows = [
        (value.get(name, np.nan), *_bootstrap.interval(draws.get(name, nothing), confidence))
        for name in names
    ]
    index = pd.Index(names, name="metric")
    return pd.DataFrame(rows, columns=["value", "low", "high"], index=index, dtype=float)
