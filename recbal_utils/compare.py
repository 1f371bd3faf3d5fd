"""One table for any sampler and model: ranking, probability, tail and price, with intervals.

`compare` trains every method with several seeds and judges each on the same test rows, on the same
bootstrap replicates of households. `summary`, `differences` and `table` read its runs.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbal_utils import _bootstrap, _inputs, _tables, _visits, datasets
from recbal_utils._atomic import replacing
from recbal_utils.calibrate import log_odds_shift, shift_log_odds
from recbal_utils.errors import RecbalError

RANKING = ("roc_auc", "average_precision", "ndcg_at_10", "recall_at_50")
PROBABILITY = (
    "normalised_entropy",
    "expected_calibration_error",
    "relative_calibration_error",
    "ratio",
)
PRICE = ("seconds", "memory_mb", "rows")
WHOLE = -1  # the "replicate" that is the test itself
N_BINS = 20


@dataclass(frozen=True)
class Method:
    """How training rows become predictions.

    Parameters
    ----------
    model : callable
        `model(seed)` returns a classifier with `fit` and `predict_proba`, as in scikit-learn.
    sampler : callable, optional
        `sampler(seed)` returns an object with `fit_resample(X, y)`, as in imbalanced-learn.
    train : str, default "train"
        Which of the training sets to use.
    shift : float or "prior", default 0
        Log-odds to add to the predictions, such as ln β after negatives were kept at rate β. If
        it is not 0, the one training gives two entries: the method, and the method "corrected".
        "prior" computes it from the counts before and after the sampler: the change of the
        log-odds of the training rate, undone.
    seeded : bool, default True
        False where nothing is random: the method runs once.
    """

    model: Callable[[int], Any]
    sampler: Callable[[int], Any] | None = None
    train: str = "train"
    shift: float | str = 0.0
    seeded: bool = True


@dataclass(frozen=True)
class Test:
    """Rows at their natural rate, on which every method is judged.

    Parameters
    ----------
    X : array-like of shape (n, d)
    y : array-like of shape (n,)
        0 or 1.
    groups : array-like of shape (n,), optional
        The household of each row, which the bootstrap draws; rows without it.
    visits : array-like of shape (n,), optional
        The visit of each row; without it there are no metrics within a visit.
    segments : DataFrame or mapping of array-like of shape (n,), optional
        Segments of rows, such as product tiers: each value gets a recall@50 of its own, counting
        only its conversions in the list of the whole visit. Needs visits.
    """

    __test__ = False  # not for pytest

    X: Any
    y: Any
    groups: Any = None
    visits: Any = None
    segments: Any = field(default_factory=dict)

    @classmethod
    def of_log(cls, rows: pd.DataFrame, X) -> "Test":
        """Return the rows of `datasets.visit_table` as a test, with X made of them.

        Households are drawn; product tiers and household kinds are the segments.
        """
        return cls(
            X,
            rows["conversion"].to_numpy(),
            groups=rows["household_id"].to_numpy(),
            visits=rows["visit"].to_numpy(),
            segments=datasets.segments(rows),
        )


def compare(
    methods: Mapping[str, Method],
    trains: Mapping[str, tuple] | tuple,
    test: Test,
    *,
    seeds: Sequence[int] = range(5),
    n_replicates: int = 200,
    checkpoint: Path | str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every method with every seed, and judge each on the same test.

    Parameters
    ----------
    methods : mapping of str to Method
    trains : mapping of str to (X, y) or (X, y, sample_weight), or one such tuple
    test : Test
    seeds : sequence of int
        Given to the samplers and models.
    n_replicates : int, default 200
        Bootstrap replicates, the same for all methods and seeds.
    checkpoint : path, optional
        Folder for the results of each training, from which an interrupted run goes on. Use a new
        one whenever methods or data change.
    progress : bool, default True
        Print a line for each training.

    Returns
    -------
    pandas.DataFrame
        Indexed by method, seed and replicate; replicate -1 is the test itself. Columns: metrics
        of ranking and probability as in `evaluate`, "recall_at_50[tail]" and the like for
        segments, and the price: seconds of sampling and fitting, memory_mb used on top at the
        peak, rows fitted (price only at replicate -1).

    Raises
    ------
    RecbalError
        If a training or test set has one class only, a value that is not finite, shapes that
        differ, or a name that is unknown.
    """
    trains = _checked_trains(trains)
    judge = _Judge(test, n_replicates)
    _check_methods(methods, trains)
    jobs = [(n, s) for n, m in methods.items() for s in (seeds if m.seeded else list(seeds)[:1])]
    frames = {}
    for number, (name, seed) in enumerate(jobs, start=1):
        run = _Run(name, methods[name], trains[methods[name].train], seed)
        start = time.perf_counter()
        for entry, frame in _remembered(checkpoint, run, judge).items():
            frames[entry, seed] = frame
        if progress:
            spent = time.perf_counter() - start
            print(f"[{number}/{len(jobs)}] {name}, seed {seed}: {spent:.0f} s", flush=True)
    return pd.concat(frames, names=["method", "seed"])


def summary(runs: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds of each metric, with an interval for another seed and other households.

    Parameters
    ----------
    runs : DataFrame
        From `compare`.
    confidence : float in (0, 1), default .95

    Returns
    -------
    pandas.DataFrame
        Indexed by method and metric; value is the mean over seeds on the test itself, of prices
        the median, since the first training of a process also pays for its start. low and high
        are percentiles of the replicates of all seeds together (NaN for prices).
    """
    _check_runs(runs)
    return _summarised(runs, confidence)


def differences(runs: pd.DataFrame, baseline: str, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return each method minus the baseline, paired by seed and replicate, as in `summary`.

    Raises
    ------
    RecbalError
        If the baseline is not among the methods.
    """
    _check_runs(runs)
    if baseline not in runs.index.levels[0]:
        known = ", ".join(map(str, _methods(runs)))
        raise RecbalError(f"The baseline {baseline!r} is not among the methods: {known}.")
    against = runs.loc[baseline]
    found = {name: _paired(runs.loc[name], against) for name in _methods(runs) if name != baseline}
    return _summarised(pd.concat(found, names=["method"]), confidence)


def table(
    runs: pd.DataFrame, metrics: Sequence[str] | None = None, *, digits: int = 3, interval=True
) -> pd.DataFrame:
    """A row for each method and a column for each metric, as text "value [low, high]".

    Parameters
    ----------
    runs : DataFrame
        From `compare`, or the result of `summary` or `differences`.
    metrics : sequence of str, optional
        Which, and in what order; all by default.
    digits : int, default 3
        Digits after the point, for values below 10.
    interval : bool, default True
        False leaves the intervals out.
    """
    long = runs if "low" in runs.columns else summary(runs)
    names = list(metrics) if metrics is not None else _unique(long.index.get_level_values(1))
    unknown = [name for name in names if name not in long.index.get_level_values(1)]
    if unknown:
        raise RecbalError(f"The runs hold no metric {', '.join(unknown)}.")
    methods = _unique(long.index.get_level_values(0))
    texts = {
        name: [_text(long.loc[(method, name)], digits, interval) for method in methods]
        for name in names
    }
    return pd.DataFrame(texts, index=pd.Index(methods, name="method"))


# --- judging ------------------------------------------------------------------------------------


class _Judge:
    """The test's rows, units and bootstrap, shared by all methods."""

    def __init__(self, test, n_replicates):
        segments = dict(test.segments) if test.segments is not None else {}
        _inputs.check_shapes(y=test.y, groups=test.groups, visits=test.visits, **segments)
        self.X = _features(test.X, len(np.asarray(test.y)), "the test")
        self.y = _inputs.labels(test.y)
        _check_both_classes(self.y, "The test")
        self.n_replicates = _inputs.count(n_replicates, "n_replicates", 0)
        self.visits = None if test.visits is None else _inputs.units(test.visits, "visits")
        self.units = self._units(test.groups)
        if segments and self.visits is None:
            raise RecbalError("segments need visits: recall is counted within a visit.")
        if self.visits is not None:
            self.unit_of_visit = np.zeros(self.visits.n, dtype=np.int64)
            self.unit_of_visit[self.visits.codes] = self.units.codes
        self.chosen = self._segment_masks(segments)

    def _units(self, groups):
        if groups is not None:
            return _inputs.units(groups, "groups")
        return self.visits or _inputs.Units(np.arange(len(self.y)), len(self.y))

    def _segment_masks(self, segments):
        """For each segment's name: which of the conversions are in it."""
        masks = {}
        for values in segments.values():
            ofs = np.asarray(values, dtype=object)[self.y == 1]
            order = (
                values.cat.categories if hasattr(values, "cat") else pd.unique(np.asarray(values))
            )
            masks |= {f"recall_at_50[{value}]": ofs == value for value in order}
        return {name: mask for name, mask in masks.items() if mask.any()}

    def frame(self, p, same_order=None):
        """Metrics of predictions p: a row for the test itself, then one for each replicate.

        `same_order` is the frame of predictions that rank alike, whose rankings are taken over.
        """
        tables = [_tables.probability_table(self.y, p, None, self.units), self._calibration(p)]
        if same_order is None:
            tables.append(_tables.ranking_table(self.y, p, None, self.units))
            tables += self._within_visits(p) if self.visits is not None else []
        whole = np.ones((1, self.units.n))
        value = {k: v[0] for t in tables for k, v in t.values(whole).items()}
        draws = _bootstrap.replicate(tables, self.units.n, self.n_replicates, seed=0)
        rows = {n: np.r_[value[n], draws[n]] for n in value}
        index = pd.RangeIndex(WHOLE, self.n_replicates, name="replicate")
        frame = pd.DataFrame(rows, index=index)
        if same_order is not None:
            frame = frame.join(same_order[same_order.columns.difference(frame.columns)])
        return frame[[n for n in (*RANKING, *PROBABILITY, *self.chosen) if n in frame]]

    def _calibration(self, p):
        edges = np.unique(np.quantile(p, np.arange(1, N_BINS) / N_BINS, method="inverted_cdf"))
        bins = np.searchsorted(edges, p, side="left")
        return _tables.calibration_table(self.y, p, None, self.units, bins, N_BINS)

    def _within_visits(self, p):
        blocks = _visits.relevant_blocks(self.y == 1, p, self.visits)
        values = {
            "ndcg_at_10": _visits.ndcg(blocks, 10),
            "recall_at_50": _visits.recall(blocks, 50),
        }
        for name, chosen in self.chosen.items():
            values[name] = _visits.recall(blocks.counting(chosen), 50)
        return [
            _tables.visit_table(name, value, self.unit_of_visit, self.units.n)
            for name, value in values.items()
        ]


@dataclass(frozen=True)
class _Run:
    """One training: its name, method, rows and seed."""

    name: str
    method: Method
    train: tuple
    seed: int

    def entries(self, judge):
        """Return {entry: frame}: the method, and the method corrected if it has a shift."""
        X, y, *weight = self.train
        with _Price() as price:
            X_fit, y_fit = X, y
            if self.method.sampler is not None:
                X_fit, y_fit = self.method.sampler(self.seed).fit_resample(X, y)
            model = self.method.model(self.seed).fit(X_fit, y_fit, *weight)
        p = np.asarray(model.predict_proba(judge.X)[:, 1], dtype=np.float64)
        if not np.isfinite(p).all():
            raise RecbalError(
                f"{self.name}, seed {self.seed}: the model predicts values that are not finite."
            )
        shift = self.method.shift
        if shift == "prior":
            shift = log_odds_shift(np.mean(y_fit), np.mean(y))
        found = {self.name: judge.frame(p)}
        if shift:
            corrected = shift_log_odds(p, shift)
            found[f"{self.name}, corrected"] = judge.frame(corrected, found[self.name])
        for frame in found.values():
            frame.loc[WHOLE, list(PRICE)] = price.seconds, price.memory_mb, float(len(y_fit))
        return found


class _Price:
    """Seconds of a block, and the memory that the process took on top of what it had."""

    def __enter__(self):
        import psutil

        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        self._start = time.perf_counter()
        return self

    def _look(self):
        while not self._done.wait(0.02):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._start
        self._peak = max(self._peak, self._process.memory_info().rss)
        self._done.set()
        self._watch.join()
        self.memory_mb = (self._peak - self._before) / 2**20


def _remembered(checkpoint, run, judge):
    """Return the entries of a run, from the checkpoint if they are there."""
    if checkpoint is None:
        return run.entries(judge)
    digest = hashlib.sha256(run.name.encode()).hexdigest()[:12]
    path = Path(checkpoint) / f"{digest}-{run.seed}.parquet"
    if path.exists():
        stored = pd.read_parquet(path)
    else:
        stored = pd.concat(run.entries(judge), names=["entry"])
        with replacing(path) as part:
            stored.to_parquet(part)
    return {entry: stored.loc[entry] for entry in _unique(stored.index.get_level_values(0))}


# --- reading runs -------------------------------------------------------------------------------


def _summarised(runs, confidence):
    if not 0 < confidence < 1:
        raise RecbalError(f"confidence must lie between 0 and 1; it is {confidence!r}.")
    whole = runs.index.get_level_values("replicate") == WHOLE
    tail = 100 * (1 - confidence) / 2
    rows = {}
    for name in _methods(runs):
        values, draws = runs[whole].loc[name], runs[~whole]
        draws = draws.loc[name] if len(draws) else draws
        for metric in runs.columns:
            known = draws[metric].dropna().to_numpy() if len(draws) else np.empty(0)
            low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (np.nan,) * 2
            value = values[metric].median() if metric in PRICE else values[metric].mean()
            rows[name, metric] = value, low, high
    index = pd.MultiIndex.from_tuples(rows, names=["method", "metric"])
    return pd.DataFrame(rows.values(), index=index, columns=["value", "low", "high"], dtype=float)


def _paired(runs, against):
    """Runs minus the baseline's; a side that ran once stands against every seed of the other."""
    seeds = [_unique(side.index.get_level_values("seed")) for side in (runs, against)]
    if len(seeds[0]) == 1 or len(seeds[1]) == 1:
        pairs = [(a, b) for a in seeds[0] for b in seeds[1]]
    else:
        pairs = [(seed, seed) for seed in seeds[0] if seed in seeds[1]]
    if not pairs:
        raise RecbalError("The method and the baseline share no seed: compare them in one call.")
    found = [runs.loc[a] - against.loc[b] for a, b in pairs]
    return pd.concat(dict(enumerate(found)), names=["seed"])


def _text(row, digits, interval):
    if np.isnan(row["value"]):
        return ""

    def number(x):
        if abs(x) >= 1000:
            return f"{x:,.0f}"
        return f"{x:.{digits}f}" if abs(x) < 10 else f"{x:.{max(0, digits - 2)}f}"

    if not interval or np.isnan(row["low"]):
        return number(row["value"])
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def _methods(runs):
    return _unique(runs.index.get_level_values("method"))


def _unique(values):
    return list(dict.fromkeys(values))


# --- checks -------------------------------------------------------------------------------------


def _checked_trains(trains):
    if isinstance(trains, tuple):
        trains = {"train": trains}
    checked = {}
    for name, (X, y, *weight) in trains.items():
        labels = _inputs.labels(y)
        _check_both_classes(labels, f"Training set {name!r}")
        _features(X, len(labels), f"training set {name!r}")
        checked[name] = (X, y, *weight)
    return checked


def _check_both_classes(y, where):
    if y.min() == y.max():
        raise RecbalError(
            f"{where} holds only {'positives' if y[0] else 'negatives'}: use more rows, or a split "
            "that keeps both classes."
        )


def _features(X, n, where):
    """Return X unless its length or a value is wrong."""
    values = np.asarray(X)
    if values.ndim != 2 or len(values) != n:
        raise RecbalError(f"X of {where} has shape {values.shape}; it needs {n} rows and 2 axes.")
    if values.dtype.kind in "fc" and not np.isfinite(values).all():
        column = int(np.argmin(np.isfinite(values).all(axis=0)))
        name = X.columns[column] if hasattr(X, "columns") else column
        raise RecbalError(
            f"X of {where} holds a value that is not finite in column {name!r}: fill it in first."
        )
    return X


def _check_methods(methods, trains):
    if not methods:
        raise RecbalError("There is no method to compare.")
    for name, method in methods.items():
        if method.train not in trains:
            known = ", ".join(trains)
            raise RecbalError(f"{name!r} trains on {method.train!r}; there is only {known}.")
        if isinstance(method.shift, str) and method.shift != "prior":
            raise RecbalError(f"shift of {name!r} is {method.shift!r}; give a number or 'prior'.")


def _check_runs(runs):
    if list(runs.index.names) != ["method", "seed", "replicate"]:
        raise RecbalError("runs must be what `compare` returned, with its index.")
