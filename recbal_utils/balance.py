"""Negative down-sampling: keep the positives, thin the negatives, remember what undoes it.

imbalanced-learn's `RandomUnderSampler` drops the rows. What it lacks is added here: a keep rate,
the weights, the shift of the log-odds that brings a model back to the natural rate, and the same
on lazy tables that do not fit in memory (by `recbal_utils.sampling`).
"""

import numbers
from collections.abc import Sequence

import ibis.expr.types as ir
import numpy as np
import pandas as pd
from imblearn.under_sampling import RandomUnderSampler

from recbal_utils import _lazy, sampling
from recbal_utils.errors import RecbalError


class NegativeDownsampler(RandomUnderSampler):
    """Keep every positive and a share of the negatives.

    `fit_resample` follows imbalanced-learn and holds the rows in memory; `sample` works on a lazy
    table of any size. Both leave behind what a model needs to predict at the natural rate:
    `calibrate.shift_log_odds(model.predict_proba(X)[:, 1], sampler.log_odds_shift_)`.

    Parameters
    ----------
    keep_rate : float, optional
        In (0, 1], the share β of negatives kept.
    negatives_per_positive : float, optional
        The imbalance ratio wanted, instead of `keep_rate`. imbalanced-learn's
        `sampling_strategy` is its inverse, and is no parameter here. With neither of the two,
        classes become equally large, as with `RandomUnderSampler`.
    random_state : int, RandomState instance or None, default None
        Seed. `sample` takes an int, or None for 0.

    Attributes
    ----------
    keep_rate_ : float
        Share of the negatives kept: the realised one in memory, the nominal one of `sample`.
    log_odds_shift_ : float
        What to add to the log-odds of a model fitted on the sample without weights; ln β. Set
        for two classes only.
    sample_weight_ : ndarray of shape (n_kept,)
        Rows of the data that each kept row stands for (`fit_resample`).
    sample_indices_ : ndarray of shape (n_kept,)
        Positions of the kept rows (`fit_resample`).

    Notes
    -----
    The positive class is the later one in sorted order, of which scikit-learn's models give the
    probability in `predict_proba(X)[:, 1]`: 1 of {0, 1}. No row is invented or repeated.

    References
    ----------
    G. King and L. Zeng, "Logistic Regression in Rare Events Data", Political Analysis 9, 2001.
    X. He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.

    Examples
    --------
    >>> X, y = np.arange(1010).reshape(-1, 1), np.arange(1010) < 10
    >>> sampler = NegativeDownsampler(keep_rate=0.05, random_state=0)
    >>> X_kept, y_kept = sampler.fit_resample(X, y)
    >>> len(X_kept), int(y_kept.sum()), float(sampler.sample_weight_.sum())
    (60, 10, 1010.0)
    """

    _parameter_constraints = {  # noqa: RUF012 (imbalanced-learn's own way)
        # Numbers are checked here, so that a bad one gives one sentence of the library.
        "keep_rate": "no_validation",
        "negatives_per_positive": "no_validation",
        "random_state": ["random_state"],
    }
    replacement = False

    def __init__(self, *, keep_rate=None, negatives_per_positive=None, random_state=None):
        self.keep_rate = keep_rate
        self.negatives_per_positive = negatives_per_positive
        self.random_state = random_state

    @property
    def sampling_strategy(self):
        """What imbalanced-learn is asked for: a function of y, or "auto" for equal classes."""
        self._check_numbers()
        if self.keep_rate is None and self.negatives_per_positive is None:
            return "auto"
        return self._wanted_negatives

    def fit_resample(self, X, y, **params):
        """Drop negatives of data in memory.

        Parameters
        ----------
        X : array-like, DataFrame or sparse matrix of shape (n, n_features)
        y : array-like of shape (n,)
            Two classes; the positive one is the later in sorted order.

        Returns
        -------
        X_kept, y_kept
            Of the types given, index and dtypes kept; negatives first, in random order.

        Raises
        ------
        RecbalError
            `y` is missing somewhere or has one class only, both or bad numbers are given, or
            there are too few negatives for `negatives_per_positive`.
        """
        _check_labels(y)
        return super().fit_resample(X, y, **params)

    def sample(
        self,
        table: ir.Table,
        label: str,
        keys: Sequence[str],
        *,
        start: str | None = None,
        weight: str = "weight",
    ) -> ir.Table:
        """Drop negatives of a lazy table; which ones is decided by their keys alone.

        The same rows are kept on every engine, for every number of threads and order of rows.
        The table is read once, to count its classes; nothing is held in memory.

        Parameters
        ----------
        table : ibis Table
        label : str
            Boolean or 0/1 column without missing values.
        keys : sequence of str
            Integer columns that together name a row. Rows that share them stay together.
        start : str, optional
            State of keys mixed before, as in `sampling.hash_state`.
        weight : str, default "weight"
            Name of the new column: 1 for positives, 1/β for negatives.

        Returns
        -------
        ibis Table
            Lazy: the kept rows of `table` and the weights.

        Raises
        ------
        RecbalError
            A column is missing, a key is no integer column, the label is missing somewhere, not
            0/1 or of one class, or as in `fit_resample`.
        """
        self._check_numbers()
        seed = 0 if self.random_state is None else self.random_state
        sampling.hash_state(table, keys, seed, start=start)  # bad keys are told before the count
        counts = _lazy.label_counts(_lazy.labelled(table, label), label)
        positives, negatives = int(counts["positives"]), int(counts["negatives"])
        rate = self.keep_rate or self._ratio_share(positives, negatives)
        self._remember(negatives=rate, positives=1.0)
        self.counts_ = {"positives": positives, "negatives": negatives}
        return sampling.sample_negatives(table, label, keys, rate, seed, start=start, weight=weight)

    def collect(self, table: ir.Table, label: str, keys: Sequence[str], **options) -> pd.DataFrame:
        """`sample`, brought into memory; raises if its weights do not add up.

        Parameters, errors: as for `sample`. Weights that miss the number of rows of the table by
        more than chance allows (6 standard deviations) tell that rows share their keys.

        Returns
        -------
        pandas.DataFrame
            Sorted by `keys`, so that the result does not depend on the engine.
        """
        kept = _lazy.run(self.sample(table, label, keys, **options))
        kept = kept.sort_values(list(keys), ignore_index=True)
        stands_for = float(kept[options.get("weight", "weight")].sum())
        rows = sum(self.counts_.values())
        variance = self.counts_["negatives"] * (1 / self.keep_rate_ - 1)
        if abs(stands_for - rows) > 6 * np.sqrt(variance) + 1e-6 * rows:
            raise RecbalError(
                f"The weights add up to {stands_for:,.0f} rows and the table has {rows:,}: rows "
                f"share the keys {', '.join(keys)}; name keys that tell rows apart."
            )
        return kept

    def _fit_resample(self, X, y):
        kept = super()._fit_resample(X, y)
        labels, classes, before = np.unique(y, return_inverse=True, return_counts=True)
        classes = classes[self.sample_indices_]
        shares = np.bincount(classes, minlength=len(labels)) / before
        self.sample_weight_ = 1 / shares[classes]
        if len(labels) == 2:
            self._remember(*shares)
        return kept

    def _remember(self, negatives, positives):
        self.keep_rate_ = float(negatives)
        self.log_odds_shift_ = float(np.log(negatives) - np.log(positives))

    def _wanted_negatives(self, y):
        """Rows to keep of each class to be thinned, as imbalanced-learn wants them."""
        labels, counts = np.unique(y, return_counts=True)
        if len(labels) != 2:
            raise RecbalError(
                f"y has {len(labels)} classes; a keep rate needs two: positives and negatives."
            )
        negatives, positives = counts
        rate = self.keep_rate or self._ratio_share(positives, negatives)
        wanted = round(rate * negatives)
        if wanted == 0:
            raise RecbalError(
                f"A keep rate of {rate:g} leaves none of {negatives:,} negatives; keep more."
            )
        return {labels[0]: wanted}

    def _ratio_share(self, positives, negatives):
        ratio = self.negatives_per_positive or 1
        if ratio * positives > negatives:
            raise RecbalError(
                f"negatives_per_positive={ratio:g} wants {ratio * positives:,.0f} negatives; there "
                f"are {negatives:,}. Give at most {negatives / positives:.4g}."
            )
        return ratio * positives / negatives

    def _check_numbers(self):
        rate, ratio = self.keep_rate, self.negatives_per_positive
        if rate is not None and ratio is not None:
            raise RecbalError("Give keep_rate or negatives_per_positive, not both.")
        if rate is not None and not (_is_number(rate) and 0 < rate <= 1):
            raise RecbalError(f"keep_rate is {rate!r}; give a number above 0 and at most 1.")
        if ratio is not None and not (_is_number(ratio) and 0 < ratio < np.inf):
            raise RecbalError(f"negatives_per_positive is {ratio!r}; give a number above 0.")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_labels(y):
    """Say what is wrong with labels before imbalanced-learn says it at length."""
    labels = pd.Series(np.ravel(np.asarray(y)))
    if missing := int(labels.isna().sum()):
        raise RecbalError(
            f"y is missing in {missing:,} of {len(labels):,} rows: drop or fill them first, and "
            "say how many."
        )
    if (labels == labels.iloc[0]).all():
        raise RecbalError(
            f"y has one class only: all {len(labels):,} rows hold {labels.tolist()[0]!r}. After a "
            "split, see whether a part was left without positives."
        )
