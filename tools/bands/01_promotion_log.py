"""Bands of chapter 1: run its cells once, then draw its households anew for each claim.

The tables and the statistics are the notebook's own, so a band cannot drift from its claim.
Run it from the root of the project: `.venv/bin/python tools/bands/01_promotion_log.py`.
"""

import os
import tempfile
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
from ibis import _

from recbal_utils import claims, diagnose

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_promotion_log.ipynb"
N_DRAWS = 400
SEEDS = range(10)


def run_chapter():
    """Run the chapter without solutions and reports; return its names, cells and claims."""
    measured = {}

    def record(ledger, id, value, *_, **__):
        measured[id] = float(value)

    claims.Ledger.claim = record
    cells = {
        cell.id: cell.source
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells
        if cell.cell_type == "code" and "solution" not in cell.metadata.get("tags", [])
    }
    names = {}
    for id, source in cells.items():
        if not id.startswith("report-"):
            exec(compile(source, id, "exec"), names)
            matplotlib.pyplot.close("all")
    return names, cells, measured


def draws(sums, seed=0):
    """Yield column sums for households drawn with replacement."""
    rng = np.random.default_rng(seed)
    for _draw in range(N_DRAWS):
        yield sums.iloc[rng.integers(len(sums), size=len(sums))].sum()


def imbalance_ratio(names):
    return [d["impressions"] / d["conversions"] - 1 for d in draws(names["households"])], 1


def household_widening(names, cells):
    """The statistic rests on draws itself: ten seeds."""
    values = []
    for seed in SEEDS:
        names["SEED"] = seed
        exec(compile(cells["intervals"], "intervals", "exec"), names)
        matplotlib.pyplot.close("all")
        values.append(names["widening"])
    return values, 1


def product_gini(names):
    """Centred on the measured value: drawing households lifts every Gini a little."""
    products = names["products"]
    sold = names["train"].filter(_.conversion == 1).select("household_id", "product_id").execute()
    product = products.index.get_indexer(sold["product_id"])
    household = pd.factorize(sold["household_id"], sort=True)[0]
    rng = np.random.default_rng(0)
    values = []
    for _draw in range(N_DRAWS):
        times = np.bincount(rng.integers(household.max() + 1, size=household.max() + 1))
        times = np.pad(times, (0, household.max() + 1 - len(times)))
        counts = np.bincount(product, times[household], minlength=len(products))
        values.append(diagnose.gini(counts))
    chances = products["impressions"] / products["impressions"].sum()
    null = diagnose.gini(rng.multinomial(len(sold), chances))
    return np.array(values) - np.mean(values) + diagnose.gini(products["conversions"]), null


def lucky_products(names):
    rates = [d["conversions"] / d["impressions"] for d in draws(names["won"])]
    return [rate["raw only"] / rate["shrunken only"] for rate in rates], 1


def cold_products(names):
    bought = names["past"].select("product_id").distinct().mutate(seen=True)
    test = names["test"].left_join(bought, "product_id").mutate(seen=_.seen.fill_null(False))
    table = test.group_by("household_id", "seen").agg(**names["tally"]).execute()
    sums = table.pivot_table(index="household_id", columns="seen", aggfunc="sum").fillna(0)
    rates = [d["conversions"] / d["impressions"] for d in draws(sums)]
    return [rate[True] / rate[False] for rate in rates], 1


def new_pairs(names):
    pair = ["household_id", "product_id"]
    sold = names["test"].filter(_.conversion == 1).select(pair).execute()
    before = names["past"].select(pair).distinct().execute()
    sold["new"] = sold.merge(before, how="left", on=pair, indicator=True)["_merge"] == "left_only"
    sums = sold.groupby("household_id")["new"].agg(["sum", "count"])
    return [d["sum"] / d["count"] for d in draws(sums)], names["pair"]["share_of_rows"]


def main():
    os.environ["RECBAL_CLAIMS_DIR"] = tempfile.mkdtemp()
    matplotlib.use("Agg")
    names, cells, measured = run_chapter()
    statistics = {
        "imbalance-ratio": imbalance_ratio(names),
        "household-widening": household_widening(names, cells),
        "product-gini": product_gini(names),
        "lucky-products": lucky_products(names),
        "cold-products": cold_products(names),
        "new-pairs": new_pairs(names),
    }
    assert statistics.keys() == measured.keys()
    for id, (values, null) in statistics.items():
        low, high = claims.band(values, null=null)
        assert low <= measured[id] <= high, id
        print(f"{id}: measured {measured[id]:.6g}, band [{low:g}, {high:g}], null {null:.4g}")


if __name__ == "__main__":
    main()
