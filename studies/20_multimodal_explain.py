"""Study of chapter 20: three kinds of input alone and together, and new positives made of text.

Trained on every positive and 1 % of the negatives of weeks 20 to 40, corrected by the log of the
keep rate, judged on whole visits of weeks 45 to 48. Settings were chosen on weeks 41 to 44.
"""

import gc
import importlib
import time
from functools import cached_property

import numpy as np
import pandas as pd
from ibis import _
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.decomposition import PCA

from recbal_utils import (
    _bootstrap,
    _inputs,
    _tables,
    calibrate,
    cold_start,
    datasets,
    encoder,
    studies,
)
from recbal_utils.fusion import WAYS, FusionClassifier, between
from recbal_utils.models import preprocessing
from recbal_utils.periods import TEST_WEEKS, TRAIN_WEEKS

KEEP_RATE = 0.01
SHIFT = float(np.log(KEEP_RATE))
WORDS = ["department", "product_category", "product_type", "brand"]
TEXT, PROFILE, LAGS = 24, 48, 6
TEXT_SCALE, COSINE_SCALE = 5, 3  # bring these columns near standard deviation 1
CHANNELS = ("price", "discount", "stores", "display", "mailer")
KINDS = {"purchases": len(datasets.FEATURES), "text": TEXT + 2, "series": LAGS * len(CHANNELS)}
# Chosen on weeks 41 to 44, for each on its own: more passes gained nothing.
ALONE = {"hidden": (64,), "epochs": 8, "batch_size": 2048, "learning_rate": 0.008}
PARTS = {"hidden": (32,), "epochs": 4, "batch_size": 2048, "learning_rate": 0.012}
SETTINGS = {"early": {"hidden": (64,), "epochs": 4, "batch_size": 4096, "learning_rate": 0.012}}
SETTINGS |= {"late": PARTS, "gated": PARTS}
MODELS = {
    **{kind: {"kinds": (kind,)} for kind in KINDS},
    "purchases + text": {"kinds": ("purchases", "text")},
    "purchases + series": {"kinds": ("purchases", "series")},
    **{how: {"how": how} for how in WAYS},
    "early, copies": {"added": "copies"},
    "early, SMOTE": {"added": "SMOTE"},
}
ADDED = 4  # new positives for each one of a rare product
MOST_SEEDS, REPLICATES = 2, 200
TWICE = ("purchases", *WAYS)
WHOLE_ONLY = ("text", "series")  # judged over all products, not in each segment
BLOCK = 50_000
METRICS = ["roc_auc", "average_precision", "normalised_entropy", "ratio"]


class Inputs:
    """The three kinds of input for any rows of the log."""

    def __init__(self):
        self.train = datasets.training_table(keep_rate=KEEP_RATE)
        self.scale = preprocessing().fit(datasets.matrix(self.train))
        self.weeks = TEST_WEEKS[-1] + 1

    @cached_property
    def products(self):
        """Every product of the catalogue, with its text."""
        table = datasets.journey("products").execute()
        table["product_id"] = table["product_id"].astype(np.int64)
        table["text"] = texts(table)
        return table.set_index("product_id").sort_index()

    @cached_property
    def embedded(self):
        """The language model's vectors of products, centred; one row a product."""
        shown = self.products.index.isin(promoted_products())
        some = self.products.text.where(shown, "unknown")
        vectors = encoder.embeddings(some)
        return vectors - vectors[shown].mean(axis=0)

    @cached_property
    def short(self):
        """The first principal components of the vectors, for products and profiles."""
        known = self.products.index.isin(self.train.product_id.unique())
        return PCA(PROFILE, random_state=0).fit(self.embedded[known]).transform(self.embedded)

    @cached_property
    def profiles(self):
        """Mean vector of what a household bought before each week, and in the eight before it."""
        bought = datasets.purchases().filter(_.week < self.weeks)
        columns = ["household_id", "product_id", "week"]
        bought = bought.select(*columns).distinct().execute().sort_values(columns)
        place = self.products.index.get_indexer(bought.product_id)
        bought = bought[place >= 0]
        total = np.zeros((bought.household_id.max() + 1, self.weeks, PROFILE), np.float32)
        np.add.at(total, (bought.household_id, bought.week), self.short[place[place >= 0]])
        before = np.cumsum(total, axis=1) - total
        recent = before.copy()
        recent[:, 8:] -= before[:, :-8]
        return [unit(part) for part in (before, recent)]

    @cached_property
    def series(self):
        """Price and placement of each product and week, shape (products, weeks, channels)."""
        found = np.zeros((len(self.products), self.weeks, len(CHANNELS)), np.float32)
        for name, column in weekly(self.weeks).items():
            table = column.reset_index()
            place = self.products.index.get_indexer(table.product_id)
            there = place >= 0
            at = place[there], table.week[there].astype(int), CHANNELS.index(name)
            found[at] = table[name][there]
        return found

    @cached_property
    def windows(self):
        """What the lags before a week are, the last first; place w ends before week weeks - w."""
        back = np.ascontiguousarray(self.series[:, ::-1]).reshape(len(self.products), -1)
        return sliding_window_view(back, KINDS["series"], axis=1)[:, :: len(CHANNELS)]

    def matrix(self, rows, room=0):
        """Columns of all kinds for some rows, in the order of `KINDS`; float32.

        `room` more rows are left empty at the end.
        """
        X = np.empty((len(rows) + room, sum(KINDS.values())), np.float32)
        for start in range(0, len(rows), BLOCK):  # a block at a time, for the sake of memory
            block = rows.iloc[start : start + BLOCK]
            self._fill(X[start : start + len(block)], block)
        return X

    def _fill(self, X, rows):
        place = self.products.index.get_indexer(rows.product_id)
        week = rows.week.to_numpy().astype(int)
        X[:, : KINDS["purchases"]] = self.scale.transform(datasets.matrix(rows))
        self.put_text(X, self.short[place], rows)
        X[:, -KINDS["series"] :] = self.windows[place, self.weeks - week]
        X[place < 0, KINDS["purchases"] :] = 0

    def put_text(self, X, vectors, rows):
        """Write text vectors, and their cosines with the households' profiles, into X."""
        start, week = KINDS["purchases"], rows.week.to_numpy().astype(int)
        X[:, start : start + TEXT] = TEXT_SCALE * vectors[:, :TEXT]
        length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
        for i, profile in enumerate(self.profiles):
            mean = profile[rows.household_id.to_numpy(), week]
            cosine = np.einsum("ij,ij->i", vectors, mean) / length
            X[:, start + TEXT + i] = COSINE_SCALE * cosine


def texts(table):
    """Words of each product, without its size."""
    return cold_start.texts(table.assign(**{n: "" for n in set(cold_start.DESCRIPTION) - {*WORDS}}))


def promoted_products():
    """Products promoted in any week up to the last of the test."""
    weeks = (_.week >= TRAIN_WEEKS[0]) & (_.week <= TEST_WEEKS[-1])
    return datasets.promotions().filter(weeks).select("product_id").distinct().execute().product_id


def unit(vectors):
    """Vectors of length one; zeros stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def weekly(weeks):
    """Each channel as a series by product and week."""
    keys = ["product_id", "week"]
    sold = datasets.purchases().filter(_.week < weeks).group_by(keys)
    sold = sold.agg(paid=_.paid_cents.sum(), off=_.discount_cents.sum(), n=_.quantity.sum())
    sold = sold.execute().set_index(keys).sort_index()
    so_far = sold.groupby("product_id").cumsum()
    price = np.log((sold.paid + 1) / sold.n) - np.log((so_far.paid + 1) / so_far.n)
    shown = datasets.promotions().filter(_.week < weeks).group_by(keys)
    shown = shown.agg(
        stores=_.count(),
        display=(_.display != "0").mean(),
        mailer=(_.mailer != "0").mean(),
    )
    shown = shown.execute().set_index(keys)
    return {
        "price": price.clip(-2, 2).rename("price"),
        "discount": (sold.off / (sold.off + sold.paid + 1)).rename("discount"),
        "stores": (np.log1p(shown.stores) / 2).rename("stores"),
        "display": shown.display,
        "mailer": shown.mailer,
    }


# --- trainings ------------------------------------------------------------------------------


class Lab:
    """Training rows, test rows and how to judge; made once for all trainings."""

    def __init__(self, inputs=None, weeks=TEST_WEEKS, share=datasets.TEST_SHARE):
        self.inputs = inputs or Inputs()
        rows = self.inputs.train
        self.y = rows.conversion.to_numpy()
        rare = (datasets.segments(rows).tier != "head").to_numpy() & (self.y == 1)
        self.rare, self.n_new = rows[rare], ADDED * int(rare.sum())
        self.place_of_rare = np.flatnonzero(rare)
        self.X = self.inputs.matrix(rows, room=self.n_new)  # new rows go to the end: no copy
        test = datasets.visit_table(weeks, share=share)
        self.X_test = self.inputs.matrix(test)
        self.masks = segments(test)
        households, self.y_test = test.household_id.to_numpy(), test.conversion.to_numpy(np.float64)
        self.units = {
            s: _inputs.units(households[m], "household_id") for s, m in self.masks.items()
        }

    def columns(self, kinds):
        """Columns of some kinds of input: a slice (no copy) where they stand side by side."""
        ends = dict(zip(KINDS, np.cumsum(list(KINDS.values())), strict=True))
        places = np.concatenate([np.arange(ends[kind] - KINDS[kind], ends[kind]) for kind in kinds])
        together = (np.diff(places) == 1).all()
        return slice(places[0], places[-1] + 1) if together else places

    def put_new_rows(self, way, seed):
        """Put positives of rare products after the others: their text copied, or between two."""
        place = self.inputs.products.index.get_indexer(self.rare.product_id)
        parents = np.unique(place)
        vectors = self.inputs.short[parents]
        made, first, _partner, _u = between(vectors, self.n_new, random_state=seed)
        rng = np.random.default_rng(seed)
        order = np.argsort(place, kind="stable")
        start, end = (np.searchsorted(place[order], parents[first], s) for s in ("left", "right"))
        chosen = order[rng.integers(start, end)]
        X = self.X[len(self.y) :]
        X[:] = self.X[self.place_of_rare[chosen]]
        if way == "SMOTE":
            self.inputs.put_text(X, made, self.rare.iloc[chosen])

    def judge(self, p, only=None):
        """Metrics of the test (-1) and of its bootstrap draws, for each segment."""
        found = {name: self._draws(p, name) for name in only or self.masks}
        return pd.concat(found, names=["segment", "replicate"])

    def _draws(self, p, segment):
        """As `evaluate.report` and `evaluate.replicates`, from one pass over the rows."""
        mask, units = self.masks[segment], self.units[segment]
        rows = self.y_test[mask], p[mask], None, units
        tables = [_tables.ranking_table(*rows), _tables.probability_table(*rows)]
        whole = [table.values(np.ones((1, units.n))) for table in tables]
        draws = _bootstrap.replicate(tables, units.n, REPLICATES, 0)
        found = {name: np.append(part[name], draws[name]) for part in whole for name in part}
        return pd.DataFrame(found, index=range(-1, REPLICATES))[METRICS]

    def gates(self, model):
        """Mean weight of each kind of input in each segment, of one test row in sixteen."""
        some = slice(None, None, 16)
        gate = model.gate(self.X_test[some])
        mean = {(name, -1): gate[mask[some]].mean(axis=0) for name, mask in self.masks.items()}
        names = [f"gate, {kind}" for kind in KINDS]
        return pd.DataFrame.from_dict(mean, orient="index", columns=names).set_index(
            pd.MultiIndex.from_tuples(mean, names=["segment", "replicate"])
        )


def segments(rows):
    """Names of segments of products, each with the rows in it."""
    tier = datasets.segments(rows).tier
    bought = datasets.purchases().filter(_.week <= TRAIN_WEEKS[-1]).select("product_id")
    bought = bought.distinct().execute().product_id
    masks = {"all": np.ones(len(rows), dtype=bool)}
    masks |= {name: (tier == name).to_numpy() for name in ("head", "mid", "tail")}
    return masks | {"never bought": ~rows.product_id.isin(bought).to_numpy()}


def predicted(lab, kinds=tuple(KINDS), how="early", added=None, seed=0):
    """Train once; return corrected probabilities of the test rows, and the model."""
    columns, y, shift = lab.columns(kinds), lab.y, SHIFT
    if added is not None:
        lab.put_new_rows(added, seed)
        y = np.concatenate([y, np.ones(lab.n_new, y.dtype)])
        shift += calibrate.log_odds_shift(y.mean(), lab.y.mean())
    groups = {kind: KINDS[kind] for kind in kinds}
    settings = ALONE if kinds == ("purchases",) else SETTINGS[how]
    model = FusionClassifier(groups, how, random_state=seed, **settings)
    model.fit(lab.X[: len(y), columns], y)
    parts = np.array_split(lab.X_test, 16)
    p = [model.predict_proba(part[:, columns])[:, 1] for part in parts]
    return calibrate.shift_log_odds(np.concatenate(p), shift), model


def result_of(lab, name, seed):
    """Metrics of one model by segment and replicate, and the CPU seconds of its training."""
    importlib.import_module("keras")  # seconds that are not the first training's
    started = time.process_time()
    p, model = predicted(lab, seed=seed, **MODELS[name])
    seconds = time.process_time() - started
    frame = lab.judge(p, only=["all"] if name in WHOLE_ONLY else None)
    if model.how == "gated":
        frame = frame.join(lab.gates(model))
    print(f"{name}, seed {seed}: {seconds:.0f} s", flush=True)
    return frame.assign(seconds=seconds)


def run(seeds=range(5), checkpoint=None, only=None):
    """Return metrics by model, seed, segment and bootstrap replicate (-1: the test itself)."""
    lab, frames = Lab(), {}
    for done in ("train", "embedded", "series", "windows"):  # 0.6 GB that no training reads
        delattr(lab.inputs, done)
    for seed in list(seeds)[:MOST_SEEDS]:
        for name in MODELS:
            if (only is not None and name not in only) or (seed and name not in TWICE):
                continue
            make = lambda name=name, seed=seed: result_of(lab, name, seed)
            frames[name, seed] = studies.kept(checkpoint, f"{name}-{seed}", make)
            gc.collect()  # a network holds its rows in a cycle
    return pd.concat(frames, names=["model", "seed"])


if __name__ == "__main__":
    studies.main(run)
