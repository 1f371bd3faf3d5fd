"""Why a model says what it says: Shapley values on log-odds, and a page that a manager can read.

An explanation splits the log-odds of a row into a base value, the mean over a background, and one
part for each feature. On this scale a prior correction adds one number to the base value and
changes no part.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

# What LightGBM's classifiers make shap say on every call; it changes nothing of the values.
LIGHTGBM_SAYS = "LightGBM binary classifier with TreeExplainer shap values output has changed"

# Plain words for the features of the promotion log; features of one kind share them.
WORDS = {
    **dict.fromkeys(("h_trips", "h_trips_4w", "h_recency"), "how often the customer shops"),
    **dict.fromkeys(
        ("h_items_per_trip", "h_spend_per_trip", "h_products"), "how much the customer buys"
    ),
    **dict.fromkeys(
        ("p_purchases", "p_purchases_4w", "p_buyers", "p_recency"), "how well the product sells"
    ),
    **dict.fromkeys(("p_price", "p_price_ratio"), "its usual price"),
    **dict.fromkeys(("p_discount", "p_discount_last"), "its earlier discounts"),
    **dict.fromkeys(("hp_purchases", "hp_recency"), "whether the customer bought it before"),
    **dict.fromkeys(
        ("hc_purchases", "hc_recency", "hc_share"), "what the customer buys of its category"
    ),
    "on_display": "whether it is on display",
    **dict.fromkeys(("on_mailer", "on_cover"), "its place in the mailer"),
    "p_stores": "how many stores promote it",
}


@dataclass(frozen=True)
class Explanation:
    """Log-odds of rows, split into a base value and a part for each feature.

    Attributes
    ----------
    base : float
        Mean log-odds over the background, in nats.
    parts : ndarray of shape (n, d)
        Parts, in nats; `base` and a row's parts add up to its log-odds.
    features : tuple of str
        Names of the d features.
    """

    base: float
    parts: np.ndarray
    features: tuple[str, ...]

    def log_odds(self) -> np.ndarray:
        """Return base value plus parts: the model's log-odds, shape (n,)."""
        return self.base + self.parts.sum(axis=1)

    def shifted(self, shift: float) -> "Explanation":
        """Return the explanation of the model whose log-odds are higher by `shift`."""
        return replace(self, base=self.base + float(shift))

    def importance(self) -> pd.Series:
        """Return the mean size of each feature's part, largest first."""
        size = pd.Series(np.abs(self.parts).mean(axis=0), index=list(self.features))
        return size.sort_values(ascending=False, kind="stable")


def trees(model, X, background, features: Sequence[str]) -> Explanation:
    """Explain a LightGBM classifier exactly, against a background.

    Parameters
    ----------
    model : lightgbm.LGBMClassifier
        Fitted, for two classes.
    X : array-like of shape (n, d)
        Rows to explain.
    background : array-like of shape (m, d)
        What an absent feature is drawn from; rows at the natural rate, a hundred or more.
    features : sequence of str
        Names of the columns.

    Raises
    ------
    RecbalError
        If shapes do not match, shap is not installed, or the parts miss the model's log-odds.

    Notes
    -----
    Interventional TreeSHAP of S. M. Lundberg et al., "From local explanations to global
    understanding with explainable AI for trees", Nature Machine Intelligence 2, 2020.
    """
    shap = _shap()
    X, background = _checked(X, background, features)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LIGHTGBM_SAYS)
        explainer = shap.TreeExplainer(
            model.booster_, background, feature_perturbation="interventional"
        )
        values = np.asarray(explainer.shap_values(X), dtype=np.float64)
    found = Explanation(float(np.ravel(explainer.expected_value)[-1]), values, tuple(features))
    return _adding_up(found, model.booster_.predict(X, raw_score=True))


def any_model(
    log_odds: Callable[[np.ndarray], np.ndarray],
    X,
    background,
    features: Sequence[str],
    *,
    n_orders: int = 10,
    seed: int = 0,
) -> Explanation:
    """Explain whatever gives log-odds, by adding features in random orders and back.

    Parameters
    ----------
    log_odds : callable
        From rows of shape (n, d) to log-odds of shape (n,).
    X, background, features
        As for `trees`; each row costs ``2 * n_orders * (d + 1)`` backgrounds of predictions.
    n_orders : int, default 10
        Random orders, each walked forwards and backwards.
    seed : int, default 0

    Raises
    ------
    RecbalError
        As for `trees`.

    Notes
    -----
    The parts add up exactly; each is an estimate where features interact. The same walk is in
    `shap.PermutationExplainer`, whose first call compiles for half a minute.
    """
    X, background = _checked(X, background, features)
    n_orders = _inputs.count(n_orders, "n_orders", 1)
    rng = np.random.default_rng(_inputs.count(seed, "seed", 0))
    parts = np.zeros(X.shape)
    for row, x in enumerate(X):
        for _ in range(n_orders):
            order = rng.permutation(X.shape[1])
            for walk in (order, order[::-1]):
                parts[row, walk] += np.diff(_walked(log_odds, x, background, walk))
    base = float(np.mean(log_odds(background)))
    found = Explanation(base, parts / (2 * n_orders), tuple(features))
    return _adding_up(found, log_odds(X))


def _walked(log_odds, x, background, order):
    """Mean log-odds over the background as one feature after the other becomes that of x."""
    steps = np.repeat(background[None], len(x) + 1, axis=0)
    for step, feature in enumerate(order, start=1):
        steps[step:, :, feature] = x[feature]
    return np.reshape(log_odds(steps.reshape(-1, len(x))), (len(x) + 1, -1)).mean(axis=1)


def agreement(explanations: Sequence[Explanation]) -> float:
    """Return how alike several models explain the same rows.

    For each row and pair of models the rank correlation (Spearman) of the sizes of the parts;
    the mean of all. 1 says that every model names the same features in the same order.

    Parameters
    ----------
    explanations : sequence of Explanation
        Two or more, of the same rows and features.

    Raises
    ------
    RecbalError
        If there are fewer than two, or their shapes differ.
    """
    shapes = {found.parts.shape for found in explanations}
    if len(explanations) < 2 or len(shapes) != 1:
        raise RecbalError(
            f"There are {len(explanations)} explanations of shapes {sorted(shapes)}: give two or "
            "more of the same rows and features."
        )
    ranks = [pd.DataFrame(np.abs(e.parts)).rank(axis=1).to_numpy() for e in explanations]
    ranks = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    lengths = [np.sqrt((rank**2).sum(axis=1)) for rank in ranks]
    found = [
        (ranks[a] * ranks[b]).sum(axis=1) / np.maximum(lengths[a] * lengths[b], 1e-12)
        for a, b in combinations(range(len(ranks)), 2)
    ]
    return float(np.mean(found))


# --- a page to read -------------------------------------------------------------------------


def frequency(p: float) -> str:
    """Return a probability as a natural frequency, such as "3 of 1,000".

    Parameters
    ----------
    p : float
        In [0, 1].

    Returns
    -------
    str
        Of 10, 100, 1,000 and so on up to 100,000: the first at which rounding to a whole count
        changes the probability by a tenth of it at most, and does not make it certain.

    Raises
    ------
    RecbalError
        If p is no probability.

    Examples
    --------
    >>> frequency(0.0031), frequency(0.5), frequency(0.0)
    ('3 of 1,000', '5 of 10', 'fewer than 1 of 100,000')
    """
    if not (isinstance(p, int | float | np.floating) and 0 <= p <= 1):
        raise RecbalError(f"p is {p!r}; give a probability from 0 to 1.")
    for of in (10, 100, 1_000, 10_000, 100_000):
        count = round(p * of)
        if abs(count - p * of) <= 0.1 * p * of and (count < of or p == 1) and count:
            break
    return f"{count:,} of {of:,}" if count else f"fewer than 1 of {of:,}"


def reasons(
    explanation: Explanation, row: int, words: Mapping[str, str], *, most: int = 3
) -> tuple[list[str], list[str]]:
    """Return what speaks for and against, in plain words, the strongest first.

    Parameters
    ----------
    explanation : Explanation
    row : int
        Which row of it.
    words : mapping of str to str
        What stands for each feature. Features with the same words are one reason: their parts
        are added. A feature without words stops the page, so that no column is left unsaid.
    most : int, default 3
        Reasons on each side, at most.

    Raises
    ------
    RecbalError
        If a feature has no words.
    """
    silent = [name for name in explanation.features if name not in words]
    if silent:
        raise RecbalError(f"There are no plain words for {', '.join(silent)}: add them to words.")
    parts = pd.Series(explanation.parts[row], index=[words[n] for n in explanation.features])
    parts = parts.groupby(level=0).sum().sort_values(ascending=False)
    told = [f"{name} ({effect(part)})" for name, part in parts.items()]
    n_for, n_against = int((parts > 0).sum()), int((parts < 0).sum())
    return told[:n_for][:most], told[::-1][:n_against][:most]


def _alike(p, usual):
    """Two probabilities as counts out of the same number, 1,000 unless one is too rare."""
    frequency(p), frequency(usual)  # raise if they are no probabilities
    of = next((n for n in (1_000, 10_000) if min(p, usual) * n >= 0.95), 100_000)
    return [f"{round(x * of):,} of {of:,}" for x in (p, usual)]


def effect(part: float) -> str:
    """Return in plain words what a part of the log-odds does to the odds.

    Parameters
    ----------
    part : float
        In nats.

    Returns
    -------
    str
        From twice the odds on a factor, below that a percentage.

    Examples
    --------
    >>> effect(3.9), effect(0.1), effect(-0.1), effect(0.001)
    ('raises the odds 49-fold', 'raises the odds by 11 %', 'lowers the odds by 10 %', \
'hardly changes the odds')
    """
    factor = float(np.exp(part))
    if factor >= 2:
        return f"raises the odds {float(f'{factor:.2g}'):,.10g}-fold"
    percent = round(100 * abs(factor - 1))
    if percent == 0:
        return "hardly changes the odds"
    if percent == 100:
        return "lowers the odds by more than 99 %"
    return f"{'raises' if factor > 1 else 'lowers'} the odds by {percent} %"


def page(
    explanation: Explanation,
    row: int,
    words: Mapping[str, str],
    *,
    product: str,
    usual: float,
    most: int = 3,
) -> str:
    """Return one recommendation's page, as Markdown, for someone who runs a shop.

    Parameters
    ----------
    explanation : Explanation
        Of a corrected model, against rows at the natural rate.
    row : int
    words : mapping of str to str
        As for `reasons`.
    product : str
        What is offered. The page names no household.
    usual : float
        In [0, 1], the rate of all offers, to compare with.
    most : int, default 3
        Reasons on each side.

    Raises
    ------
    RecbalError
        As for `reasons` and `frequency`.
    """
    p = float(expit(explanation.log_odds()[row]))
    speaks_for, against = reasons(explanation, row, words, most=most)
    counts = _alike(p, usual)
    lines = [
        f"**Offer: {product}**",
        "",
        f"About {counts[0]} such offers end in a purchase; over all offers it is {counts[1]}.",
        "",
        "What speaks for it: " + ("; ".join(speaks_for) or "nothing much") + ".",
        "",
        "What speaks against it: " + ("; ".join(against) or "nothing much") + ".",
        "",
        "Odds compare purchases with the rest: 1 of 10 is odds of 1 to 9. Each reason is compared "
        "with ordinary offers. Reasons say why the model expects a purchase, not what would cause "
        "one: a better place in the mailer may do more or less than is said here. They say nothing "
        "of a single person.",
    ]
    return "\n".join(lines)


# --- shap and checks --------------------------------------------------------------------------


def _shap():
    """Import shap, silently: its progress bar misses widgets, its plots use what will go away."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        try:
            import shap
        except ImportError:
            raise RecbalError(
                "Explaining trees needs the package shap: run `pip install -r requirements.txt`."
            ) from None
    return shap


def _checked(X, background, features):
    X, background = np.asarray(X, np.float64), np.asarray(background, np.float64)
    shapes = X.shape, background.shape
    if X.ndim != 2 or background.ndim != 2 or len({s[1] for s in shapes} | {len(features)}) != 1:
        raise RecbalError(
            f"X and background have shapes {shapes[0]} and {shapes[1]}, and there are "
            f"{len(features)} names: give as many columns in both as there are names."
        )
    if not len(X) or not len(background):
        raise RecbalError("X or background has no row: there is nothing to explain, or to compare.")
    return X, background


def _adding_up(found, log_odds):
    """Return the explanation if its parts add up to the model's log-odds."""
    error = np.abs(found.log_odds() - log_odds).max()
    if error > 1e-3 * max(1.0, np.abs(log_odds).max()):
        raise RecbalError(
            f"The parts miss the model's log-odds by {error:.2g}: explain log-odds, not "
            "probabilities, of the very model that predicts."
        )
    return found
