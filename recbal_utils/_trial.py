"""Balancing tried on a log of one's own: trainings, gains beyond chance, a verdict, costs."""

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from recbal_utils import _bootstrap, calibrate, compare, evaluate, ranks
from recbal_utils.balance import NegativeDownsampler

PLAIN = "as they are"
WEIGHTS = "class weights"
OVER = "over-sampling 1:1"
UNDER = "under-sampling 1:1"
THINNED = "10 negatives per positive"
KEPT = 10
THIN_FROM = 2 * KEPT  # negatives per positive from which thinning to 10 is worth a try
CORRECTED = ", corrected"
MODELS = ("logistic regression", "boosted trees")
Z95 = 1.96
TOLERANCE = 1e-7  # where positives are rare all gradients are small: 1e-4 stops before the optimum
LEAST_TO_CHOOSE = 10  # rows of each class on either side; with fewer the simpler model is taken
# Judgement: gains below are not worth a change, however certain they are.
SMALLEST_AUC, SMALLEST_AP = 0.002, 0.02  # of AUC, and of average precision relative to itself
LARGEST_LOSS_NE = 0.005  # of normalised entropy, after correction
SIGNIFICANT = 0.05
# Judgement: a gain of this size in both ranking metrics must be ruled out before it is said that
# balancing is not worth it.
HIDDEN_AUC, HIDDEN_AP = 0.005, 0.1  # of AUC, and of average precision relative to itself
MAX_UNITS = 4_000  # rows are put into as many blocks at random: replicates are then cheap


@dataclass(frozen=True)
class Settings:
    """How much is spent on the comparison.

    Attributes
    ----------
    seeds : tuple of int, default (0, 1, 2)
        Of the samplers.
    n_replicates : int, default 500
        Bootstrap replicates behind each interval.
    trees : int, default 100
        Rounds of boosting.
    seed : int, default 0
        Of the split and of the order of rows.
    """

    seeds: tuple = (0, 1, 2)
    n_replicates: int = 500
    trees: int = 100
    seed: int = 0


def model(name, *, seed=0, trees=100, class_weight=None):
    """Return an unfitted classifier: "logistic regression" or "boosted trees"."""
    if name == MODELS[0]:
        return LogisticRegression(C=1.0, tol=TOLERANCE, max_iter=500, class_weight=class_weight)
    return HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=0.06,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        class_weight=class_weight,
        random_state=seed,
    )


def sampler(way, seed=0):
    """Return the sampler of a way to balance, or None."""
    made = {
        OVER: lambda: RandomOverSampler(random_state=seed),
        UNDER: lambda: RandomUnderSampler(random_state=seed),
        THINNED: lambda: NegativeDownsampler(negatives_per_positive=KEPT, random_state=seed),
    }
    return made[way]() if way in made else None


@dataclass(frozen=True)
class Matrices:
    """Training and test rows as numbers.

    `units` are what the bootstrap draws of the test. `choosing` marks the training rows on which
    one of the two models is chosen, so that the test chooses nothing.
    """

    X_train: pd.DataFrame
    y_train: np.ndarray
    X_test: pd.DataFrame
    y_test: np.ndarray
    units: np.ndarray
    choosing: np.ndarray


class _Remembering:
    """A classifier whose predictions for the test are kept."""

    def __init__(self, estimator, store, key):
        self._estimator, self._store, self._key = estimator, store, key

    def fit(self, X, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._estimator.fit(X, y)
        return self

    def predict_proba(self, X):
        p = self._estimator.predict_proba(X)
        self._store[self._key] = p[:, 1].astype(np.float64)
        return p


@dataclass
class Trial:
    """All trainings on one log, and what they say.

    Attributes
    ----------
    runs : DataFrame, see `compare.compare`
        Methods are named "model: way" and "model: way, corrected".
    predictions : dict of (method, seed) to ndarray
        Of the test rows, not corrected.
    shifts : dict of method to float
        What the correction adds to the log-odds, in nats.
    """

    data: Matrices
    settings: Settings
    runs: pd.DataFrame = None
    predictions: dict = field(default_factory=dict)
    shifts: dict = field(default_factory=dict)

    def run(self) -> "Trial":
        """Train everything and judge it on the test rows."""
        data, settings = self.data, self.settings
        units = blocks(data.units, settings.seed)
        self.runs = compare.compare(
            {f"{name}: {way}": self._method(name, way) for name in MODELS for way in self.ways},
            (data.X_train, data.y_train),
            compare.Test(data.X_test, data.y_test, groups=units),
            seeds=settings.seeds,
            n_replicates=settings.n_replicates,
            progress=False,
        )
        return self

    @property
    def ways(self) -> list:
        """The ways to balance that make sense at this imbalance."""
        ratio = (1 - self.data.y_train.mean()) / self.data.y_train.mean()
        return [PLAIN, WEIGHTS, OVER, UNDER, *([THINNED] if ratio > THIN_FROM else [])]

    def _method(self, name, way) -> compare.Method:
        method, rate = f"{name}: {way}", self.data.y_train.mean()
        weight = "balanced" if way == WEIGHTS else None
        to = KEPT**-1 / (1 + KEPT**-1) if way == THINNED else 0.5
        self.shifts[method] = 0.0 if way == PLAIN else calibrate.log_odds_shift(to, rate)
        return compare.Method(
            model=lambda seed: _Remembering(
                model(name, seed=seed, trees=self.settings.trees, class_weight=weight),
                self.predictions,
                (method, seed),
            ),
            sampler=None if sampler(way) is None else lambda seed: sampler(way, seed),
            shift=self.shifts[method] if way == WEIGHTS else 0.0 if way == PLAIN else "prior",
            seeded=sampler(way) is not None,
        )

    def first(self, method) -> np.ndarray:
        """Predictions of a method's first seed."""
        return self.predictions[method, self.settings.seeds[0]]

    def corrected(self, method) -> np.ndarray:
        """Predictions of a method's first seed, at the natural rate."""
        return calibrate.shift_log_odds(self.first(method), self.shifts[method])

    def summary(self) -> pd.DataFrame:
        """As `compare.summary`."""
        return compare.summary(self.runs)

    def best_plain(self) -> str:
        """The chosen model, without any balancing."""
        return f"{self.chosen}: {PLAIN}"

    @cached_property
    def chosen(self) -> str:
        """The model of higher average precision on training rows set aside.

        Where they hold too few of a class, the simpler one.
        """
        rows = self.data.choosing
        sides = [np.bincount(self.data.y_train[side], minlength=2) for side in (rows, ~rows)]
        if np.min(sides) < LEAST_TO_CHOOSE:
            return MODELS[0]
        return max(MODELS, key=lambda name: self._precision_on(rows, name))

    def _precision_on(self, rows, name) -> float:
        X, y, store = self.data.X_train, self.data.y_train, {}
        trained = _Remembering(model(name, trees=self.settings.trees), store, name)
        trained.fit(X[~rows], y[~rows]).predict_proba(X[rows])
        return evaluate.average_precision(y[rows], store[name])


def blocks(units, seed) -> np.ndarray:
    """Units, or where there are very many of them, units put together at random."""
    codes = np.unique(units, return_inverse=True)[1]
    n = codes.max() + 1
    if n <= MAX_UNITS:
        return codes
    return (np.random.default_rng(seed).permutation(n) % MAX_UNITS)[codes]


# --- gains ---------------------------------------------------------------------------------------


def gains(trial) -> pd.DataFrame:
    """Each way of balancing minus none, for the same model, paired on the same replicates.

    Returns
    -------
    DataFrame indexed by model, way and metric ("roc_auc", "average_precision",
        "normalised_entropy"; the last after correction), with the columns value, low, high and
        p: Holm's over all ranking gains; NaN for entropy.
    """
    rows = {}
    for name in MODELS:
        found = compare.differences(trial.runs.loc[_of(trial, name)], f"{name}: {PLAIN}")
        for way in trial.ways[1:]:
            method = f"{name}: {way}"
            for metric in ("roc_auc", "average_precision"):
                rows[name, way, metric] = found.loc[(method, metric)]
            after = method + CORRECTED
            entry = after if after in found.index.get_level_values(0) else method
            rows[name, way, "normalised_entropy"] = found.loc[(entry, "normalised_entropy")]
    frame = pd.DataFrame(rows).T.rename_axis(["model", "way", "metric"])
    ranking = frame.index.get_level_values("metric") != "normalised_entropy"
    frame["p"] = np.nan
    frame.loc[ranking, "p"] = ranks.holm(_p_values(frame[ranking]))
    return frame


def _of(trial, name):
    return [m for m in trial.runs.index.levels[0] if m.startswith(f"{name}: ")]


def _p_values(frame):
    """Two-sided, by the width of the interval: finer than the share of replicates can be."""
    spread = (frame["high"] - frame["low"]) / (2 * Z95)
    z = np.where(spread > 0, np.abs(frame["value"]) / np.where(spread > 0, spread, 1), 0)
    return pd.Series(np.clip(2 * norm.sf(z), 0, 1), frame.index)


@dataclass(frozen=True)
class Verdict:
    """Whether balancing is worth it: a word, a sentence, and the method to use.

    Attributes
    ----------
    answer : str
        "too few", "no signal", "no", "unclear" (no gain shown, and a large one not ruled out) or
        "yes".
    sentence : str
    method : str or None
        "model: way" to use; None where there are too few rows to tell.
    """

    answer: str
    sentence: str
    method: str | None = None


def too_few(n_train, n_test, rare, least) -> Verdict:
    """The verdict where either side holds too few of the rarer class."""
    return Verdict(
        "too few",
        f"Too few {rare} to tell: {n_train:,} to learn from and {n_test:,} to judge by, and "
        f"below {least} on either side every difference drowns in chance. Collect more {rare}; "
        "until then use all rows as they are, and a simple model.",
    )


def nothing_left() -> Verdict:
    """The verdict where ids, single values and suspected leaks were all there was."""
    return Verdict(
        "too few",
        "Nothing is left to learn from: without ids, columns of one value and suspected leaks "
        "there is no column for a model. Add columns that are known before the label is.",
    )


def verdict(trial, found=None) -> Verdict:
    """Return whether some way of balancing beats none, for the chosen model."""
    found = (gains(trial) if found is None else found).sort_index()
    best = trial.best_plain()
    name = best.partition(": ")[0]
    summary = trial.summary()
    auc = [summary.loc[(f"{model}: {PLAIN}", "roc_auc")] for model in MODELS]
    if all(row["low"] <= 0.5 for row in auc):
        return Verdict(
            "no signal",
            "No signal: without balancing neither model ranks these rows better than chance "
            f"(ROC-AUC of the {name} {_interval(summary.loc[(best, 'roc_auc')])}). Balancing "
            "cannot add what the columns do not hold; look for other columns, or check the label.",
            best,
        )
    base = summary.loc[(best, "average_precision"), "value"]
    ways = {way: found.loc[(name, way)] for way in trial.ways[1:]}
    worthy = [way for way, of in ways.items() if _gained(of, base) and not _harmed(of)]
    if worthy:
        return _yes(found, name, worthy)
    hidden = [way for way, of in ways.items() if _may_hide_a_gain(of, base) and not _harmed(of)]
    return _unclear(found, name, base, best) if hidden else _no(found, name, base, best)


def _gained(found, base) -> bool:
    """A gain beyond chance and not tiny in a ranking metric."""
    smallest = pd.Series({"roc_auc": SMALLEST_AUC, "average_precision": SMALLEST_AP * base})
    ranking = found.loc[smallest.index]
    return bool(((ranking["p"] < SIGNIFICANT) & (ranking["value"] >= smallest)).any())


def _harmed(found) -> bool:
    """A loss beyond chance in a ranking metric, or in the corrected probabilities."""
    entropy = found.loc["normalised_entropy"]
    worse = entropy["low"] > 0 and entropy["value"] > LARGEST_LOSS_NE
    return bool(worse or (found.loc[["roc_auc", "average_precision"], "high"] < 0).any())


def _may_hide_a_gain(found, base) -> bool:
    """Whether the intervals leave room for a gain that would be worth having."""
    high = found["high"]
    return bool(high["roc_auc"] > HIDDEN_AUC and high["average_precision"] > HIDDEN_AP * base)


def _yes(found, name, worthy) -> Verdict:
    precision = found.xs("average_precision", level="metric").loc[name]
    way = precision.loc[worthy, "value"].idxmax()
    auc = found.loc[(name, way, "roc_auc")]
    return Verdict(
        "yes",
        f"Worth it here: with {way} the {name} ranks better than on the rows as they are, beyond "
        f"chance (average precision {signed(precision.loc[way])}, ROC-AUC {signed(auc)}). "
        "Correct its probabilities, and try it again on later rows before relying on it.",
        f"{name}: {way}",
    )


def _no(found, name, base, best) -> Verdict:
    return Verdict(
        "no",
        f"Not worth balancing: for the {name}, chosen on training rows, no way of balancing ranks "
        f"better beyond chance and without harm elsewhere. {_closest(found, name, base)} Train on "
        "the rows as they are, and set the threshold from costs.",
        best,
    )


def _unclear(found, name, base, best) -> Verdict:
    return Verdict(
        "unclear",
        f"No gain from balancing is shown, and none is ruled out: for the {name}, chosen on "
        "training rows, no way of balancing ranks better beyond chance and without harm "
        "elsewhere, but the intervals are wide. "
        f"{_closest(found, name, base)} Train on the rows as they are, set the threshold from "
        "costs, and ask again with more rows of the rarer class.",
        best,
    )


def _closest(found, name, base) -> str:
    """The way that raises average precision most, as a sentence."""
    precision = found.xs("average_precision", level="metric").loc[name]
    way = precision["value"].idxmax()
    change = signed(precision.loc[way])
    return f"The best of them, {way}, changes average precision by {change}, from {base:.3g}."


def _interval(row) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def signed(row) -> str:
    """A difference and its interval, each with its sign."""
    digits = 4 if abs(row["value"]) < 0.1 else 3
    return f"{row['value']:+.{digits}f} [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"


# --- decisions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """A rule by which rows are chosen: what it is called, and which rows."""

    name: str
    acted: Any


def costs_of(decisions, y, units, costs, *, n_replicates, seed=0) -> pd.DataFrame:
    """Cost of each rule per 1,000 rows, with percentile intervals over units.

    Parameters
    ----------
    decisions : list of Decision
    y : ndarray of shape (n,), 0 or 1
    units : ndarray of shape (n,)
    costs : (float, float)
        Of a false positive and of a false negative.
    n_replicates : int
    seed : int, default 0

    Returns
    -------
    DataFrame indexed by rule: share_acted, value, low, high.
    """
    codes = blocks(units, seed)
    n = codes.max() + 1
    sums = [np.bincount(codes, _cost(d.acted, y, costs), minlength=n) for d in decisions]
    sums = np.column_stack([*sums, np.bincount(codes, minlength=n)])
    chunk = max(1, _bootstrap.CHUNK_CELLS // n)
    parts = [w @ sums for w in _bootstrap.draw_weights(n, n_replicates, seed, chunk)]
    draws = np.concatenate(parts) if parts else np.empty((0, sums.shape[1]))
    rows = []
    for i, decision in enumerate(decisions):
        low, high = _bootstrap.interval(1_000 * draws[:, i] / draws[:, -1], 0.95)
        value = 1_000 * sums[:, i].sum() / len(y)
        rows.append((float(np.mean(decision.acted)), value, low, high))
    index = pd.Index([d.name for d in decisions], name="rule")
    return pd.DataFrame(rows, index=index, columns=["share_acted", "value", "low", "high"])


def _cost(acted, y, costs):
    return np.where(acted, (y == 0) * costs[0], (y == 1) * costs[1])
