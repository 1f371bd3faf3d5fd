"""Study of chapter 11: three encoders with a head for repeats, and five ways to train a softmax.

Trained on baskets of weeks 33 to 40, stopped by some of weeks 41 to 44, judged on weeks 45 to 48.
Settings were chosen on weeks 41 to 44.
"""

import numpy as np
import pandas as pd

from recbal_utils import baskets as bk
from recbal_utils import next_item, studies, training
from recbal_utils._inequality import tiers
from recbal_utils.periods import CHOOSE_WEEKS, TEST_WEEKS, TRAIN_WEEKS

ALL_WEEKS = range(1, TRAIN_WEEKS[-1] + 1)
FIT_WEEKS = range(33, TRAIN_WEEKS[-1] + 1)
EVERY = 8  # of the baskets to choose by, one in eight is enough to stop by
EPOCHS = 3
ENCODER_SEEDS = 3
KEPT = ["recall_at_20", "ndcg_at_20", "n_relevant"]
KEPT += [f"recall_at_20[{tier}]" for tier in ("head", "mid", "tail")]
# name -> (items drawn, corrected by ln Q)
LOSSES = {
    "full softmax": ("full", False),
    "in-batch": ("batch", False),
    "in-batch, logQ": ("batch", True),
    "sampled": ("popular", False),
    "sampled, logQ": ("popular", True),
}


class Part:
    """Baskets of some weeks, what their households knew, and the arrays that models take."""

    def __init__(self, baskets, weeks, every=1):
        self.rows = baskets.rows(weeks)[::every]
        self.history = bk.histories(baskets, self.rows)
        self.arrays = next_item.inputs(baskets, self.rows, self.history)
        self.bought = baskets.items[self.rows]
        self.known = self.history.matrix()
        self.household = baskets.household[self.rows]


class Data:
    """The baskets, in the parts to fit on, to choose by and to test on."""

    def __init__(self):
        self.baskets = bk.load()
        self.n_items = len(self.baskets.names)
        self.counts = self.baskets.counts(ALL_WEEKS)
        self.tiers = tiers(self.counts).to_numpy()
        self.fit = Part(self.baskets, FIT_WEEKS)
        self.choose = Part(self.baskets, CHOOSE_WEEKS, EVERY)
        self.test = Part(self.baskets, TEST_WEEKS)
        self.statistics = next_item.pair_statistics(self.fit.history)


def trained(data, seed, encoder="average", *, draw=None, corrected=False, epochs=EPOCHS, **options):
    """Return a model, trained and with its best weights."""
    import keras

    keras.utils.set_random_seed(seed)
    model = next_item.build(data.n_items, data.counts, data.statistics, encoder=encoder, **options)
    chance = drawn_share(data.fit.bought)
    batches = next_item.Batches(
        model, data.fit.arrays, data.fit.bought, draw=draw, popular=chance, seed=seed
    )
    loss = next_item.BasketCrossentropy()
    if draw is not None:
        log_q = np.log(chance) if corrected else None
        loss = next_item.DrawnCrossentropy(log_q, in_batch=draw == "batch")
    next_item.compile_model(model, loss, epochs * len(batches))
    score = next_item.scores(model, data.choose.arrays, data.n_items)
    history = training.fit(
        model,
        batches,
        validate=lambda: both_recalls(score, data.choose),
        epochs=epochs,
        seed=seed,
        progress=False,
    )
    print(f"{encoder}, seed {seed}: {history['seconds'].sum():.0f} s", flush=True)
    return model


def drawn_share(bought):
    """How often each item is drawn when one is drawn from each basket; all possible."""
    chance = np.asarray(bought.T @ (1 / np.diff(bought.indptr))).ravel() + 0.01
    return chance / chance.sum()


def both_recalls(score, part):
    """Mean of recall@20 of whole baskets and of first-time purchases."""
    frame = next_item.judge(score, part.bought, part.known, lists=("all", "first-time"))
    return frame.groupby("list")["recall_at_20"].mean().mean()


def judged(data, model, lists=next_item.LISTS):
    """Return metrics of each test basket, and how often each item is shown."""
    part = data.test
    whole = next_item.scores(model, part.arrays, data.n_items)(0, len(part.rows))

    def score(start, stop):
        return whole[start:stop]

    frame = next_item.judge(score, part.bought, part.known, tiers=data.tiers, lists=lists)
    frames = [frame[KEPT].astype(np.float32)]
    for name, left_out in {"all": None, "first-time": part.known}.items():
        if name in lists:
            times = next_item.shown(score, len(part.rows), data.n_items, exclude=left_out)
            index = pd.MultiIndex.from_product([[f"shown, {name}"], range(data.n_items)])
            frames.append(pd.DataFrame({"shown": times}, index.set_names(["list", "basket"])))
    return pd.concat(frames)


def jobs(seeds):
    """(name, seed) -> what to train, and the lists to judge."""
    found = {}
    for encoder in next_item.ENCODERS:
        for seed in list(seeds)[:ENCODER_SEEDS]:
            found[encoder, seed] = {"encoder": encoder}, next_item.LISTS
    for name, (draw, corrected) in LOSSES.items():
        options = {"draw": draw, "corrected": corrected, "repeat": False}
        found[name, next(iter(seeds))] = options, ("all",)
    return found


def run(seeds=range(5), checkpoint=None, only=None):
    """Return metrics of every test basket, indexed by model, seed, list and basket."""
    data = Data()
    frames = {}
    for (name, seed), (options, lists) in jobs(seeds).items():
        if only is None or name in only:
            frames[name, seed] = studies.kept(
                checkpoint,
                f"{name}-{seed}",
                lambda seed=seed, options=options, lists=lists: judged(
                    data, trained(data, seed, **options), lists
                ),
            )
    return pd.concat(frames, names=["model", "seed"]).sort_index()


if __name__ == "__main__":
    studies.main(run)
