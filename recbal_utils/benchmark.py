"""Balancing methods compared on any table: one split, one way to train, to choose, to judge.

Every threshold is chosen in the same way, on validation folds inside the training part, for the
method that does nothing as for all others.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from recbal_utils import _inputs
from recbal_utils.calibrate import log_odds_shift, shift_log_odds
from recbal_utils.errors import RecbalError

DECISIONS = ("balanced_accuracy", "f1")
RANKING = ("roc_auc", "average_precision")
INNER_FOLDS = 3


@dataclass(frozen=True)
class Balance:
    """What a method does before training: a sampler, class weights, or nothing.

    Parameters
    ----------
    sampler : callable, optional
        `sampler(seed)` returns an object with `fit_resample(X, y)`.
    class_weight : "balanced" or None
    """

    sampler: Callable[[int], Any] | None = None
    class_weight: str | None = None


METHODS = {
    "nothing": Balance(),
    "class weights": Balance(class_weight="balanced"),
    "over-sampling": Balance(lambda seed: RandomOverSampler(random_state=seed)),
    "under-sampling": Balance(lambda seed: RandomUnderSampler(random_state=seed)),
    "SMOTE": Balance(lambda seed: SMOTE(random_state=seed)),
    "Borderline-SMOTE": Balance(lambda seed: BorderlineSMOTE(random_state=seed)),
    "ADASYN": Balance(lambda seed: ADASYN(random_state=seed)),
}


def _logistic(seed, class_weight):
    return LogisticRegression(max_iter=2000, tol=1e-5, class_weight=class_weight)


def _tree(seed, class_weight):
    return DecisionTreeClassifier(max_depth=5, class_weight=class_weight, random_state=seed)


def _boosting(seed, class_weight):
    return HistGradientBoostingClassifier(
        max_iter=40,
        learning_rate=0.1,
        max_leaf_nodes=8,
        min_samples_leaf=5,
        early_stopping=False,
        class_weight=class_weight,
        random_state=seed,
    )


LEARNERS = {"logistic regression": _logistic, "shallow tree": _tree, "boosting": _boosting}


def preprocessing():
    """Return a transformer: numbers standardised, other columns one-hot; float64 out."""
    numbers = make_column_selector(dtype_include="number")
    others = make_column_selector(dtype_exclude="number")
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer((StandardScaler(), numbers), (one_hot, others))


def split_distinct(X, y, *, test_share=1 / 3, seed=0):
    """Split rows at random, stratified by class, with equal rows on one side.

    Parameters
    ----------
    X : DataFrame of shape (n, d)
    y : array-like of shape (n,)
        0 or 1.
    test_share : float in (0, 1)
        Of the distinct rows.
    seed : int

    Returns
    -------
    train, test : arrays of positions
    """
    first, of = _distinct(X)
    split = StratifiedShuffleSplit(1, test_size=test_share, random_state=seed)
    _, test = next(split.split(first, np.asarray(y)[first]))
    is_test = np.isin(of, test)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _distinct(X) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first of each set of equal rows, and the set of each row."""
    codes = X.groupby(list(X.columns), sort=False, dropna=False).ngroup().to_numpy()
    _, first, of = np.unique(codes, return_index=True, return_inverse=True)
    return first, of


def best_threshold(y, p, decision: str = "balanced_accuracy") -> float:
    """Threshold on p that gives the best decisions; say yes at or above it.

    Parameters
    ----------
    y : array-like of shape (n,)
        0 or 1, both present.
    p : array-like of shape (n,)
        Finite scores.
    decision : {"balanced_accuracy", "f1"}
        The mean of the shares of positives and of negatives that are right; or the harmonic mean
        of precision and recall.

    Returns
    -------
    float
        Half way between the last score to pass and the next lower one. Of several that are
        equally good, the highest.

    Raises
    ------
    RecbalError
        If there is one class only, or the decision is unknown.
    """
    y, p = _labels_and_scores(y, p)
    order = np.argsort(-p, kind="stable")
    hits, said = np.cumsum(y[order]), np.arange(1, len(y) + 1)
    last = np.r_[np.diff(p[order]) < 0, True]
    value = _decisions(hits, said, y.sum(), len(y))[_one_of(decision)][last]
    scores, at = p[order][last], int(np.argmax(value))
    return float(scores[at] if at + 1 == len(scores) else (scores[at] + scores[at + 1]) / 2)


def decide(y, p, threshold: float) -> dict[str, float]:
    """Balanced accuracy and F1 of saying yes at or above a threshold. Errors: `best_threshold`."""
    y, p = _labels_and_scores(y, p)
    yes = p >= threshold
    hits = np.array([y[yes].sum()])
    found = _decisions(hits, np.array([yes.sum()]), y.sum(), len(y))
    return {name: float(value[0]) for name, value in found.items()}


def _decisions(hits, said, positives, n):
    right_no = (n - positives) - (said - hits)
    return {
        "balanced_accuracy": (hits / positives + right_no / (n - positives)) / 2,
        "f1": 2 * hits / (said + positives),
    }


def judge(y, p, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Metrics of predictions: ranking, probabilities, decisions at one half and as chosen.

    Parameters
    ----------
    y, p
        As in `best_threshold`; p in [0, 1].
    thresholds : mapping
        For each of `DECISIONS` the threshold chosen for it.

    Returns
    -------
    dict
        `roc_auc`, `average_precision`, `scaled_brier` (Brier score over that of knowing only the
        rate: 1 is worthless, lower is better), `ratio` (mean predicted over observed rate), and
        `balanced_accuracy` and `f1` with "[half]" and "[chosen]".
    """
    y, p = _labels_and_scores(y, p)
    rate = y.mean()
    found = {
        "roc_auc": float(roc_auc_score(y, p)),
        "average_precision": float(average_precision_score(y, p)),
        "scaled_brier": float(np.mean((p - y) ** 2) / (rate * (1 - rate))),
        "ratio": float(p.mean() / rate),
    }
    for name in DECISIONS:
        found[f"{name}[half]"] = decide(y, p, 0.5)[name]
        found[f"{name}[chosen]"] = decide(y, p, thresholds[name])[name]
    return found


def compare_on(
    X,
    y,
    train,
    test,
    *,
    held=None,
    seed: int = 0,
    methods: Mapping[str, Balance] = METHODS,
    learners: Mapping[str, Callable] = LEARNERS,
    prepare: Callable[[], Any] = preprocessing,
) -> pd.DataFrame:
    """Train every method with every learner on one split, and judge it on the other part.

    Parameters
    ----------
    X : DataFrame of shape (n, d)
    y : array-like of shape (n,)
        0 or 1.
    train, test : arrays of positions
    held : array of positions, optional
        Rows to choose thresholds on, such as those of later weeks; by default three stratified
        folds of the training part, each predicted by a model that has not seen it.
    seed : int
        For folds, samplers and learners.
    methods : mapping of str to Balance
    learners : mapping of str to callable
        `learner(seed, class_weight)` returns a classifier.
    prepare : callable
        Returns a transformer, fitted on training rows alone.

    Returns
    -------
    DataFrame
        Indexed by learner and method, with the columns of `judge` and `rows` (fitted). A method
        that changed the rate adds "<method>, corrected": the change of the log-odds of the rate,
        undone. Where a sampler finds nothing to do, or refuses, the rows stay as they are.

    Raises
    ------
    RecbalError
        If a part has too few rows of a class.
    """
    X, y = X.reset_index(drop=True), np.asarray(y)
    outer = _prepared(prepare, X, y, train, test if held is None else np.r_[test, held])
    inner = [] if held is not None else list(_inner(prepare, X, y, np.asarray(train), seed))
    held_y = y[held] if held is not None else np.concatenate([part.y_held for part in inner])
    found = {}
    for method, balance in methods.items():
        parts = [_balanced(balance, part, seed) for part in (outer, *inner)]
        for learner, model in learners.items():
            as_fitted = [_predict(model(seed, balance.class_weight), part) for part in parts]
            versions = {method: as_fitted}
            if parts[0].shift:
                pairs = zip(as_fitted, parts, strict=True)
                versions[f"{method}, corrected"] = [shift_log_odds(p, q.shift) for p, q in pairs]
            for name, predicted in versions.items():
                p_test = predicted[0][: len(test)]
                p_held = np.concatenate([predicted[0][len(test) :], *predicted[1:]])
                chosen = {d: best_threshold(held_y, p_held, d) for d in DECISIONS}
                found[learner, name] = judge(y[test], p_test, chosen)
                found[learner, name]["rows"] = len(parts[0].y)
    index = pd.MultiIndex.from_tuples(found, names=["learner", "method"])
    return pd.DataFrame(found.values(), index=index)


@dataclass(frozen=True)
class _Part:
    """Rows to fit, prepared, rows to predict, and what undoes the change of the rate."""

    X: np.ndarray
    y: np.ndarray
    X_held: np.ndarray
    y_held: np.ndarray
    shift: float = 0.0


def _inner(prepare, X, y, train, seed):
    """Stratified folds of the training part, with equal rows in one fold."""
    first, of = _distinct(X.iloc[train])
    if min(np.bincount(y[train][first], minlength=2)) < INNER_FOLDS:
        raise RecbalError(
            f"The training part has fewer than {INNER_FOLDS} distinct rows of one class: "
            "thresholds cannot be chosen on folds of it."
        )
    folds = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    for _, held in folds.split(first, y[train][first]):
        is_held = np.isin(of, held)
        yield _prepared(prepare, X, y, train[~is_held], train[is_held])


def _prepared(prepare, X, y, train, held):
    fitted = prepare().fit(X.iloc[train])
    return _Part(fitted.transform(X.iloc[train]), y[train], fitted.transform(X.iloc[held]), y[held])


def _balanced(balance, part, seed):
    """The part after the method's sampler, if that does not refuse."""
    X, y = part.X, part.y
    if balance.sampler is not None:
        # ADASYN and SMOTE say so where no positive has the neighbours that they need.
        with contextlib.suppress(ValueError, RuntimeError):
            X, y = balance.sampler(seed).fit_resample(part.X, part.y)
    rate_learnt = 0.5 if balance.class_weight == "balanced" else y.mean()
    return _Part(X, y, part.X_held, part.y_held, log_odds_shift(rate_learnt, part.y.mean()))


def _predict(model, part):
    return model.fit(part.X, part.y).predict_proba(part.X_held)[:, 1]


def _labels_and_scores(y, p):
    y, p = _inputs.labels(y), np.asarray(p, dtype=np.float64)
    if y.shape != p.shape or not np.isfinite(p).all():
        raise RecbalError("Labels and scores must be finite lists of one length.")
    if y.min() == y.max():
        raise RecbalError("There is one class only: no decision can be judged.")
    return y.astype(np.int64), p


def _one_of(decision):
    if decision not in DECISIONS:
        raise RecbalError(f"decision is {decision!r}; choose one of {', '.join(DECISIONS)}.")
    return decision
