"""Replicates of the bootstrap: units drawn with replacement, metrics by matrix products."""

import numpy as np

CHUNK_CELLS = 4_000_000  # 32 MB: bounds the memory of each intermediate array


def draw_weights(n_units, n_replicates, seed, chunk):
    """Yield (chunk, n_units) counts of how often each unit was drawn.

    The counts depend on the seed alone, not on the size of the chunks.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, n_replicates, chunk):
        size = min(chunk, n_replicates - start)
        drawn = np.empty((size, n_units))
        for row in drawn:
            row[:] = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)
        yield drawn


def replicate(tables, n_units, n_replicates, seed):
    """Return {metric: array of n_replicates values}, every metric on the same replicates."""
    widest = max([n_units, *(table.sums.shape[1] for table in tables)])
    parts = {name: [] for table in tables for name in table.metrics}
    for drawn in draw_weights(n_units, n_replicates, seed, max(1, CHUNK_CELLS // widest)):
        for table in tables:
            for name, values in table.values(drawn).items():
                parts[name].append(values)
    return {name: np.concatenate(part) if part else np.empty(0) for name, part in parts.items()}


def interval(draws, confidence):
    """Percentile interval of the defined draws; (NaN, NaN) if there is none."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
