"""Time `evaluate.report` and `difference` on a synthetic test set of the book's size.

Run: python benchmarks/bench_evaluate.py [--rows 1900000 --households 485 ...]
Prints seconds and peak memory, and the time of the naive loop that sends the rows of each
replicate through scikit-learn, measured on a few replicates and extrapolated.
"""

import argparse
import resource
import sys
import time

import numpy as np
import pandas as pd
from sklearn import metrics

from recbal_utils import evaluate


def make_log(rows, households, positives, visits, seed=0):
    """Visits of uneven length, each of one household, and probabilities that tell rows apart."""
    rng = np.random.default_rng(seed)
    length = rng.multinomial(rows, rng.dirichlet(np.full(visits, 4.0)))
    owner = np.r_[np.arange(households), rng.integers(households, size=visits - households)]
    visit = np.repeat(np.arange(visits), length)
    logit = rng.normal(size=rows)
    chance = np.exp(2 * logit)
    y = np.zeros(rows, dtype=np.int8)
    y[rng.choice(rows, positives, replace=False, p=chance / chance.sum())] = 1
    p = np.clip(positives * chance / chance.sum(), 0, 1)
    return pd.DataFrame({"y": y, "p": p, "visit": visit, "household": owner[visit]})


def naive_replicate(log, rows_of, rng):
    """Score the rows of one replicate with scikit-learn: three of the nine metrics."""
    drawn = rng.integers(len(rows_of), size=len(rows_of))
    rows = np.concatenate([rows_of[household] for household in drawn])
    y, p = log["y"].to_numpy()[rows], log["p"].to_numpy()[rows]
    metrics.roc_auc_score(y, p)
    metrics.average_precision_score(y, p)
    metrics.log_loss(y, p)


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def peak_mb():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {
        "rows": 1_900_000,
        "households": 485,
        "positives": 1_844,
        "visits": 526,
        "replicates": 1_000,
        "naive": 3,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def main():
    args = parse()
    log = make_log(args.rows, args.households, args.positives, args.visits)
    units = {"groups": log["household"], "visits": log["visit"], "n_replicates": args.replicates}
    before = peak_mb()
    print(
        f"{args.rows:,} rows, {args.households:,} households, {args.visits:,} visits, "
        f"{args.positives:,} positives, {args.replicates:,} replicates; "
        f"{before:,.0f} MB before"
    )
    seconds, table = timed(lambda: evaluate.report(log["y"], log["p"], **units))
    print(f"report      {seconds:8.2f} s   peak memory +{peak_mb() - before:,.0f} MB")
    other = log["p"] ** 1.1
    seconds, _ = timed(lambda: evaluate.difference(log["y"], log["p"], other, **units))
    print(f"difference  {seconds:8.2f} s   peak memory +{peak_mb() - before:,.0f} MB")
    print(table.round(4).to_string())
    rng = np.random.default_rng(0)
    rows_of = list(log.groupby("household").indices.values())
    seconds, _ = timed(lambda: [naive_replicate(log, rows_of, rng) for _ in range(args.naive)])
    whole = seconds / args.naive * args.replicates
    print(
        f"naive loop  {seconds / args.naive:8.2f} s a replicate, mean of {args.naive}: "
        f"about {whole / 60:,.0f} min for {args.replicates:,}, extrapolated, three metrics only"
    )


if __name__ == "__main__":
    main()
