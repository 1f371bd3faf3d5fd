"""Two towers on cold start: what the product tower reads, its negatives, and its size."""

import time
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from scipy import sparse

from recbal_utils import catalogue, cold_start, encoder, studies, training, two_tower
from recbal_utils.periods import CHOOSE_WEEKS, TEST_WEEKS

LIST = 100
MOST_SEEDS = 3
MOST_ROWS = 500  # households asked of known products, which are many to rank
BATCH, STEPS, EPOCHS, PATIENCE, LEARNING_RATE = 256, 125, 3, 2, 0.003
TOWERS = ("ids", "categories", "TF-IDF", "MiniLM")
BASELINES = ("chance", "popularity", "counting", "MiniLM untrained")
BLEND = "MiniLM + counting"
IN_BATCH = "in-batch"
RUN = "run"


class Lab:
    """The shop, what the towers read of it, and the questions; made once for all trainings."""

    def __init__(self, shop=None):
        self.shop = shop or cold_start.load()
        self.pairs = cold_start.training_pairs(self.shop)
        self.households = self.bags(cold_start.SNAPSHOTS)
        self.bags_before = {
            weeks[0]: self.bags([weeks[0] - 1]) for weeks in (CHOOSE_WEEKS, TEST_WEEKS)
        }
        start = self.pairs.snapshot * len(self.shop.households)
        self.rows = np.column_stack([start + self.pairs.household, self.pairs["product"]])
        n_products = len(self.shop.products)
        self.counts = np.bincount(self.pairs["product"], minlength=n_products)
        self.log_q = two_tower.exact_log_q(self.counts)

    def bags(self, weeks):
        """Histories of all households, one snapshot below the other."""
        found = [cold_start.histories(self.shop, week) for week in weeks]
        ids, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return two_tower.Bags(ids, weights, int(cold_start.type_codes(self.shop).max()) + 1)

    @cached_property
    def embedded(self):
        """The language model's vectors of all product texts."""
        return encoder.embeddings(self.shop.products.text)

    def reads(self, what, buckets=None):
        """What a product tower reads; ids may be hashed into buckets."""
        table, known = self.shop.products, self.shop.trainable
        if what == "MiniLM":
            return two_tower.centred(self.embedded, known)
        if what == "TF-IDF":
            return two_tower.word_bags(table.text, known)
        names = [["department"], ["product_category"], ["product_type"], ["brand"]]
        columns = [cold_start.codes(table[name], known) for name in names]
        own = "product_id" if what == "ids" else "text"
        last = cold_start.codes(table[[own]], known)
        columns.append(last if buckets is None else two_tower.hashed(last, buckets))
        return two_tower.code_bags(columns)

    def question(self, name, weeks=TEST_WEEKS):
        """A question of `cold_start`, of 500 households at most if it is about known products."""
        asked = cold_start.question(self.shop, name, weeks)
        if not name.endswith("household"):
            return asked
        return replace(
            asked,
            households=asked.households[:MOST_ROWS],
            relevant=asked.relevant[:MOST_ROWS],
            exclude=asked.exclude[:MOST_ROWS],
        )

    def activity(self, weeks):
        """ln(1 + purchases) of each household before the weeks."""
        lines = self.shop.lines[self.shop.lines.week < weeks[0]]
        return np.log1p(np.bincount(lines.household, minlength=len(self.shop.households)))

    def judge(self, score, name, weeks=TEST_WEEKS):
        """Recall and NDCG of each row of a question (or its name); `score(asked)` scores it."""
        asked = self.question(name, weeks) if isinstance(name, str) else name
        relevant, exclude = asked.relevant, asked.exclude
        if asked.by_product:
            relevant, exclude = relevant.T.tocsr(), exclude.T.tocsr()
        found = catalogue.per_user(score(asked), relevant, k=LIST, exclude=exclude, ties="mean")
        return found.set_index(asked.products if asked.by_product else asked.households)


# --- scores ---------------------------------------------------------------------------------


def tower_scores(lab, model, reads, asked, weeks=TEST_WEEKS):
    """Inner products; of a product's households ln(activity) + ln p(product | household)."""
    households = two_tower.vectors(model.household, lab.bags_before[weeks[0]])
    products = two_tower.vectors(model.product, reads)
    if not asked.by_product:
        return households[asked.households] @ products[asked.products].T
    known = households @ products[lab.shop.trainable].T
    top = known.max(axis=1, keepdims=True)
    log_z = top + np.log(np.exp(known - top).sum(axis=1, keepdims=True))
    scores = households @ products[asked.products].T - log_z
    return scores.T + lab.activity(weeks)


def baseline_scores(lab, name, asked, weeks=TEST_WEEKS):
    """Scores without training: see `BASELINES`."""
    shape = len(asked.households), len(asked.products)
    if name == "chance":
        found = np.zeros(shape)
    elif name == "popularity":
        found = _popularity(lab, asked, weeks)
    elif name == "counting":
        found = _counting(lab, asked, weeks)
    else:
        found = _untrained(lab, asked, weeks)
    return found.T if asked.by_product else found


def blended(lab, model, reads, asked, weeks=TEST_WEEKS):
    """A tower's scores plus the logarithm of counting; the weight 1 was chosen on weeks 41-44."""
    counted = baseline_scores(lab, "counting", asked, weeks)
    return tower_scores(lab, model, reads, asked, weeks) + np.log(counted + 0.02)


def _popularity(lab, asked, weeks):
    """Of the product, else of its category, else of its department; or how active one is."""
    if asked.by_product:
        return np.repeat(lab.activity(weeks)[:, None], len(asked.products), axis=1)
    firsts = lab.shop.firsts
    firsts = firsts[(firsts.week < weeks[0]) & lab.shop.trainable[firsts["product"]]]
    score = np.zeros(len(asked.products))
    for level, weight in {"department": 1e-6, "product_category": 1e-3, "product_id": 1}.items():
        names = lab.shop.products[level]
        sold = names.iloc[firsts["product"]].value_counts()
        score += weight * names.iloc[asked.products].map(sold).fillna(0).to_numpy()
    return np.repeat(score[None, :], len(asked.households), axis=0)


def _counting(lab, asked, weeks):
    """Purchases of the same type, then category, then department, by the household itself."""
    lines = lab.shop.lines[lab.shop.lines.week < weeks[0]]
    n = len(lab.shop.households)
    score = np.zeros((n, len(asked.products)))
    for level, weight in {"department": 0.01, "product_category": 0.1, "product_type": 1}.items():
        codes = cold_start.codes(lab.shop.products[[level]], lab.shop.trainable)
        counts = np.zeros((n, codes.max() + 1))
        np.add.at(counts, (lines.household, codes[lines["product"]]), 1)
        counts[:, cold_start.UNKNOWN] = 0
        score += weight * counts[:, codes[asked.products]]
    popular = _popularity(lab, asked, weeks)
    return score[asked.households] + 1e-3 * popular / popular.max()


def _untrained(lab, asked, weeks):
    """Cosine of a product's text and the mean text of what the household bought."""
    texts = lab.embedded
    lines = lab.shop.lines[lab.shop.lines.week < weeks[0]]
    shape = (len(lab.shop.households), len(texts))
    ones = np.ones(len(lines), dtype=np.float32)
    total = sparse.csr_array((ones, (lines.household, lines["product"])), shape) @ texts
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    cosine = total[asked.households] @ texts[asked.products].T
    return cosine + lab.activity(weeks)[:, None] / 100 if asked.by_product else cosine


# --- training -------------------------------------------------------------------------------


def train(
    lab,
    reads,
    *,
    negatives="in-batch, logQ",
    log_q=None,
    n_uniform=0,
    hidden=64,
    seed=0,
    epochs=EPOCHS,
    progress=True,
):
    """Train two towers; weeks 41 to 44 say which epoch is best. Returns model and history."""
    import keras

    keras.utils.set_random_seed(seed)
    known = np.flatnonzero(lab.shop.trainable)
    log_q = lab.log_q if log_q is None else log_q
    if n_uniform:
        log_q = two_tower.mixed_log_q(log_q, len(known), BATCH, n_uniform)
    decay = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, STEPS * epochs)
    model = two_tower.retrieval(
        two_tower.tower(lab.households, name="household"),
        two_tower.tower(reads, hidden=hidden, name="product"),
        negatives,
        learning_rate=decay,
    )
    data = two_tower.batches(
        lab.rows,
        lab.households,
        reads,
        batch_size=BATCH,
        steps=STEPS,
        log_q=log_q,
        uniform=known,
        n_uniform=n_uniform,
        seed=seed,
    )

    asked = [lab.question(name, CHOOSE_WEEKS) for name in ("new product", "known household")]

    def validate():
        score = partial(tower_scores, lab, model, reads, weeks=CHOOSE_WEEKS)
        return np.mean([lab.judge(score, one)[f"recall_at_{LIST}"].mean() for one in asked])

    history = training.fit(
        model,
        data,
        validate=validate,
        epochs=epochs,
        patience=PATIENCE,
        seed=seed,
        progress=progress,
    )
    return model, history


def streamed_log_q(lab, seed=0):
    """ln Q of each product after one pass over the pairs in random order, in batches."""
    order = np.random.default_rng(seed).permutation(len(lab.pairs))
    items = lab.pairs["product"].to_numpy()[order]
    usual = lab.shop.trainable.sum() / BATCH
    counter = two_tower.StreamingFrequency(len(lab.counts), start=usual)
    for start in range(0, len(items) - BATCH + 1, BATCH):
        counter.update(items[start : start + BATCH])
    return counter.log_q(np.arange(len(lab.counts)), BATCH)


def trainings(seeds):
    """Every training: part, model, seed, and what is special about it."""
    plan = [("towers", what, seed, {"what": what}) for what in TOWERS for seed in seeds]
    one = seeds[0]
    for seed in seeds:
        plan.append(("negatives", IN_BATCH, seed, {"what": "ids", "negatives": IN_BATCH}))
    for negatives, settings in {
        "in-batch, logQ, hits removed": {},
        "mixed, logQ": {"n_uniform": BATCH},
    }.items():
        plan.append(
            ("negatives", negatives, one, {"what": "ids", "negatives": negatives, **settings})
        )
    plan.append(("negatives", "in-batch, streamed logQ", one, {"what": "ids", "streamed": True}))
    for hidden in (8, 1024):
        plan.append(("sizes", f"MiniLM, {hidden}", one, {"what": "MiniLM", "hidden": hidden}))
    for buckets, hidden in {100: 8, None: 1250}.items():
        name = f"ids, {hidden}"
        plan.append(("sizes", name, one, {"what": "ids", "buckets": buckets, "hidden": hidden}))
    return plan


def one_training(lab, part, name, seed, settings):
    """Train and judge once; a row for each household or product and question."""
    settings = dict(settings)
    reads = lab.reads(settings.pop("what"), settings.pop("buckets", None))
    if settings.pop("streamed", False):
        settings["log_q"] = streamed_log_q(lab)
    started = time.perf_counter()
    model, history = train(lab, reads, seed=seed, progress=False, **settings)
    seconds = time.perf_counter() - started
    about = {
        "seconds": seconds,
        "parameters": model.product.count_params(),
        "epoch": int(history.index[history.best][0]),
    }
    score = partial(tower_scores, lab, model, reads)
    print(f"{part}: {name}, seed {seed}, {seconds:.0f} s", flush=True)
    found = collect(lab, score, part, name, seed, about)
    if (part, name) != ("towers", "MiniLM"):
        return found
    mixed = partial(blended, lab, model, reads)
    return pd.concat([found, collect(lab, mixed, part, BLEND, seed)])


def collect(lab, score, part, name, seed, about=None):
    """Judge scores on every question, as rows of the study's frame."""
    rows = {asked: lab.judge(score, asked) for asked in cold_start.QUESTIONS}
    frame = pd.concat(rows, names=["question", "unit"]).reset_index()
    if about:
        frame = pd.concat([frame, pd.DataFrame([about]).assign(question=RUN, unit=-1)])
    return frame.assign(part=part, model=name, seed=seed)


def run(seeds=range(3), checkpoint=None):
    """Baselines and all trainings; each one is kept in `checkpoint` as soon as it is done."""
    seeds, lab, parts = list(seeds)[:MOST_SEEDS], Lab(), []
    for name in BASELINES:
        parts.append(collect(lab, partial(baseline_scores, lab, name), "baselines", name, 0))
    for number, plan in enumerate(trainings(seeds)):
        kept = None if checkpoint is None else checkpoint / f"{number}.parquet"
        if kept is None or not kept.exists():
            frame = one_training(lab, *plan)
            if kept is None:
                parts.append(frame)
                continue
            frame.to_parquet(kept)
        parts.append(pd.read_parquet(kept))
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    studies.main(run)
