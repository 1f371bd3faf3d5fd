"""Which model would you ship? Finished predictions, judged on the same rows and households.

`runs` puts predictions of several models and seeds into the form that `compare.summary`,
`compare.differences` and `compare.table` read; `verdicts` adds p-values for the whole family of
comparisons; `by_segment` and `gap` ask whether a difference holds for everyone.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from recbal_utils import _bootstrap, _inputs, _tables, _visits, evaluate
from recbal_utils._atomic import replacing
from recbal_utils.compare import N_BINS, WHOLE, Test, _Judge, _paired, differences
from recbal_utils.errors import RecbalError
from recbal_utils.ranks import holm


def runs(
    predictions: Mapping[str, Mapping[int, np.ndarray]],
    test: Test,
    *,
    n_replicates: int = 200,
    checkpoint: Path | str | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Judge finished predictions.

    Parameters
    ----------
    predictions : mapping of model to mapping of seed to array of shape (n,)
        Probabilities.
    test : Test
        Its X is not used.
    n_replicates : int
        Draws of households, the same for all.
    checkpoint : path, optional
        Folder for the result of each model, from which an interrupted call goes on. Use a new one
        whenever predictions or the test change.
    progress : bool, default False
        Print a line for each model.

    Returns
    -------
    pandas.DataFrame
        As from `compare.compare`, without prices.

    Raises
    ------
    RecbalError
        If there is no prediction, one is no probability, or the lengths differ.
    """
    if not predictions:
        raise RecbalError("predictions is empty: give at least one model with one seed.")
    judge, frames = _Judge(test, n_replicates), {}
    for model, by_seed in predictions.items():
        frames[model] = _remembered(checkpoint, model, by_seed, judge)
        if progress:
            print(f"[{len(frames)}/{len(predictions)}] {model} judged", flush=True)
    return pd.concat(frames, names=["method"])


def _remembered(checkpoint, model, by_seed, judge):
    """Frames of every seed of a model, from the checkpoint if they are there."""
    if checkpoint is None:
        return _judged(model, by_seed, judge)
    digest = hashlib.sha256(model.encode()).hexdigest()[:12]
    path = Path(checkpoint) / f"{digest}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            _judged(model, by_seed, judge).to_parquet(part)
    return pd.read_parquet(path)


def _judged(model, by_seed, judge):
    frames = {}
    for seed, p in by_seed.items():
        p = _inputs.numbers(p, f"The prediction of {model!r}, seed {seed},")
        _inputs.check_shapes(y=judge.y, p=p)
        _inputs.check_probabilities(p)
        frames[seed] = judge.frame(p)
    if not frames:
        raise RecbalError(f"predictions has no seed of {model!r}: give one or more.")
    return pd.concat(frames, names=["seed"])


def verdicts(
    found: pd.DataFrame, baseline: str, metrics, *, confidence: float = 0.95
) -> pd.DataFrame:
    """Every model minus the baseline, with p-values corrected for all comparisons together.

    Parameters
    ----------
    found : DataFrame
        From `runs` or `compare.compare`.
    baseline : str
    metrics : sequence of str
        The family is every model on every one of these.

    Returns
    -------
    pandas.DataFrame
        Indexed by method and metric: `value`, `low`, `high` as in `compare.differences`;
        `p_value`, two-sided, of a normal distribution with the spread of the replicates; `holm`,
        the same after Holm's correction. A metric that a model does not have is left out.
    """
    metrics = list(metrics)
    table = differences(found, baseline, confidence=confidence)
    asked = table.index.get_level_values("metric").isin(metrics)
    table = table[asked & table["value"].notna()].copy()
    table["p_value"] = [
        _p_value(_paired(found.loc[method], found.loc[baseline])[metric])
        for method, metric in table.index
    ]
    return table.assign(holm=holm(table["p_value"]))


def _p_value(gain) -> float:
    """Two-sided, from paired replicates of all seeds together."""
    whole = gain.index.get_level_values("replicate") == WHOLE
    spread = gain[~whole].std()
    if not np.isfinite(spread):
        raise RecbalError("A p-value needs replicates: judge with n_replicates of 2 or more.")
    value = gain[whole].mean()
    return float(2 * norm.sf(abs(value) / spread)) if spread > 0 else float(value == 0)


def by_segment(
    y, p, segments, *, groups, visits=None, metrics, n_replicates: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Metrics of each segment on the same draws of households.

    Parameters
    ----------
    segments : mapping of str to array-like of shape (n,)
        Ways to split the rows, such as {"tier": ..., "household": ...}.
    y, p, groups, visits, metrics, n_replicates, seed
        As for `evaluate.report_by`.

    Returns
    -------
    pandas.DataFrame
        Indexed by part (the name of the split), segment and replicate (-1 is the sample itself), a
        column for each metric; NaN where a draw leaves it undefined. Row i of two results stands
        for the same households.

    Raises
    ------
    RecbalError
        As for `evaluate.report_by`.
    """
    sample = evaluate._Sample(y, groups, visits)
    names = evaluate._metric_names(metrics, visits)
    p = evaluate._checked_predictions(y, p, "p", names)
    ranked = any(evaluate._visit_spec(name) for name in names)
    blocks = _visits.relevant_blocks(sample.y == 1, p, sample.visits) if ranked else None
    frames = {}
    for part, values in segments.items():
        _inputs.check_shapes(y=y, segments=values)
        codes, ids = _inputs.factorise(values, "segments")
        for code, segment in enumerate(ids):
            tables = _row_tables(sample, p, codes == code, names)
            tables += _visit_tables(sample, blocks, codes[sample.y == 1] == code, names)
            found = sample.values_and_draws(tables, n_replicates, seed)
            frames[part, segment] = _stacked(*found, names, n_replicates)
    return pd.concat(frames, names=["part", "segment"])


def _stacked(value, drawn, names, n_replicates):
    nothing = np.full(n_replicates + 1, np.nan)
    rows = {n: np.r_[value[n], drawn[n]] if n in value else nothing for n in names}
    return pd.DataFrame(rows, index=pd.RangeIndex(WHOLE, n_replicates, name="replicate"))


def _visit_tables(sample, blocks, chosen, names):
    tables = []
    for name in names:
        function, k = evaluate._visit_spec(name) or (None, None)
        if function is not None:
            values = function(blocks.counting(chosen), k)
            tables.append(_tables.visit_table(name, values, sample.unit_of_visit, sample.units.n))
    return tables


def _row_tables(sample, p, chosen, names):
    units = _inputs.Units(sample.units.codes[chosen], sample.units.n)
    return evaluate._row_tables(sample.y[chosen], p[chosen], None, units, names, N_BINS)


def gap(draws: pd.DataFrame, a, b, *, confidence: float = 0.95) -> pd.DataFrame:
    """Segment b minus segment a, with intervals; of a difference of models, who gains more.

    Parameters
    ----------
    draws : DataFrame
        One part of what `by_segment` returned, such as ``found.loc["tier"]``, or one such minus
        another.
    a, b : segments

    Returns
    -------
    pandas.DataFrame
        Indexed by metric, with `value`, `low`, `high`.
    """
    return interval(draws.loc[b] - draws.loc[a], confidence=confidence)


def widest(draws: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """The best minus the worst segment, chosen anew in every draw.

    It is above 0 even where all segments are alike: compare with `gap` of two that were named
    beforehand.
    """
    by_replicate = draws.groupby(level="replicate")
    return interval(by_replicate.max() - by_replicate.min(), confidence=confidence)


def interval(draws: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Value and percentile interval of each column of replicates."""
    rows = {
        name: (column.loc[WHOLE], *_bootstrap.interval(column.drop(WHOLE).to_numpy(), confidence))
        for name, column in draws.items()
    }
    index = pd.Index(list(rows), name="metric")
    return pd.DataFrame(list(rows.values()), index, ["value", "low", "high"], dtype=float)
