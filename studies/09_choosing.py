"""Study of chapter 9: every balancing method, three learners, small tables and the promotion log.

Three parts: 20 KEEL sets and the coupons; parts of the log of growing size; the whole log.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE, RandomOverSampler
from joblib import Parallel, delayed
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from recbal_utils import benchmark, coupons, datasets, keel, studies
from recbal_utils._atomic import replacing
from recbal_utils.balance import NegativeDownsampler
from recbal_utils.compare import WHOLE, Method, Test, compare
from recbal_utils.evaluate import roc_auc
from recbal_utils.models import NetworkClassifier, preprocessing

INDEX = ["part", "data", "learner", "method", "seed", "replicate"]
N_SPLITS = 3  # of the seeds, for the small tables
LEAST_POSITIVES, LEAST_RATIO = 50, 5
SIZES = (50, 250, 1250, 6250)  # positives
SIZE_RATIO = 20  # negatives per positive
KEEP_RATE = 0.01


# --- small tables -------------------------------------------------------------------------------


def tables():
    """Name -> (X, y, fixed split or None): the KEEL sets and the coupons."""
    sizes = keel.summary()
    wanted = sizes[(sizes.positives >= LEAST_POSITIVES) & (sizes.ratio >= LEAST_RATIO)].index
    found = {name: (keel.load(name).X, keel.load(name).y, None) for name in wanted}
    rows = coupons.load()
    early = (rows["start"] < coupons.SPLIT).to_numpy()
    split = np.flatnonzero(early), np.flatnonzero(~early)
    return {**found, "coupons": (rows[list(coupons.FEATURES)], rows[coupons.LABEL], split)}


def small(seeds, checkpoint=None, methods=benchmark.METHODS):
    """Return the part "tables": every set with every seed, two at a time."""
    data, frames = tables(), []
    for name in data:
        frames.append(_kept(checkpoint, f"table-{name}", _splits, name, data[name], seeds, methods))
        print(f"[{len(frames)}/{len(data)}] {name}", flush=True)
    return pd.concat(frames)


def _splits(name, data, seeds, methods):
    X, y, fixed = data
    jobs = []
    for seed in seeds:
        train, test = fixed or benchmark.split_distinct(X, y, seed=seed)
        jobs.append((X, y, train, test, seed))
    frames = Parallel(n_jobs=2)(
        delayed(benchmark.compare_on)(*job[:4], seed=job[4], methods=methods) for job in jobs
    )
    found = pd.concat(dict(zip(seeds, frames, strict=True)), names=["seed"])
    return _indexed(found, part="tables", data=name)


# --- parts of the log ---------------------------------------------------------------------------


def size_samplers():
    """What may happen to the training rows of each size."""
    return {
        "nothing": None,
        "over-sampling": lambda seed: RandomOverSampler(random_state=seed),
        "under-sampling": lambda seed: NegativeDownsampler(random_state=seed),
        "SMOTE": lambda seed: SMOTE(random_state=seed),
    }


def size_learners():
    """The two that train in a second."""
    return {"logistic regression": regression, "shallow tree": tree}


def sizes(seeds, log, checkpoint=None):
    """Return the part "sizes": ROC-AUC from growing random parts of the training rows."""
    frames = []
    for seed in seeds:
        frames.append(_kept(checkpoint, f"sizes-{seed}", _sizes, seed, log))
        print(f"sizes, seed {seed}", flush=True)
    return pd.concat(frames)


def _sizes(seed, log):
    X, y = log.trains["all positives"]
    quarter = np.asarray(log.test.groups) % 4 == 0
    X_test, y_test = log.test.X[quarter], np.asarray(log.test.y)[quarter]
    found = {}
    for n in SIZES:
        rows = part(y, n, seed)
        for method, sampler in size_samplers().items():
            fit = (X[rows], y[rows])
            fit = sampler(seed).fit_resample(*fit) if sampler else fit
            for learner, model in size_learners().items():
                p = model(seed).fit(*fit).predict_proba(X_test)[:, 1]
                found["sizes", f"{n:,} positives", learner, method, seed, WHOLE] = {
                    "roc_auc": roc_auc(y_test, p)
                }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(INDEX)


def part(y, positives, seed):
    """Positions of so many positives and 20 times as many negatives, drawn at random."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(y == label), size, replace=False)
        for label, size in ((1, positives), (0, SIZE_RATIO * positives))
    ]
    return np.concatenate(chosen)


# --- the log ------------------------------------------------------------------------------------


class Log:
    """Training sets by name, and the test rows."""

    def __init__(self):
        drawn = {
            "natural": datasets.training_table(keep_rate=KEEP_RATE, keep_positives=False),
            "all positives": datasets.training_table(keep_rate=KEEP_RATE),
        }
        scale = preprocessing().fit(datasets.matrix(drawn["natural"]))
        self.trains = {
            name: (scale.transform(datasets.matrix(rows)), rows["conversion"].to_numpy())
            for name, rows in drawn.items()
        }
        rows = datasets.visit_table()
        self.test = Test.of_log(rows, scale.transform(datasets.matrix(rows)))


def regression(seed=None, **options):
    """Return a logistic regression, taken to its optimum by Newton steps."""
    return LogisticRegression(solver="newton-cholesky", tol=1e-6, **options)


def tree(seed, **options):
    return DecisionTreeClassifier(max_depth=5, random_state=seed, **options)


def boosting(seed, least=1000, **options):
    """Return boosted trees that bear a rate of one in a thousand: see `l2_regularization`."""
    return HistGradientBoostingClassifier(
        max_iter=40,
        learning_rate=0.2,
        max_leaf_nodes=8,
        min_samples_leaf=least,
        l2_regularization=30,  # without it a leaf's step divides by next to nothing
        early_stopping=False,
        random_state=seed,
        **options,
    )


def smote(seed):
    """Return SMOTE up to ten negatives per positive."""
    return SMOTE(sampling_strategy=0.1, random_state=seed)


def network(seed, **options):
    return NetworkClassifier(epochs=5, batch_size=4096, random_state=seed, **options)


def log_methods():
    """(learner, method) -> (Method, number of seeds); other chapters' studies have the rest."""
    found = {}
    for name, model in {"shallow tree": tree, "boosting": boosting}.items():
        found[name, "nothing"] = Method(model, train="natural"), 1
        few = _with(model, least=20) if model is boosting else model  # 2,516 rows are left
        found[name, "under-sampling 1:1"] = _sampled(few, _one_to_one), 1
        found[name, "SMOTE 1:10"] = _sampled(model, smote), 1
        found[name, "all positives"] = _all_positives(model), 1
    weighted = _with(boosting, class_weight="balanced")
    found["boosting", "class weights"] = Method(weighted, train="natural"), 1
    found["logistic regression", "SMOTE 1:10"] = _sampled(regression, smote), 1
    found["logistic regression", "all positives"] = _all_positives(regression), 1
    found["network", "SMOTE 1:10"] = _sampled(network, smote), 3
    return found


def _sampled(model, sampler):
    return Method(model, sampler, train="natural", shift="prior")


def _with(model, **options):
    return lambda seed: model(seed, **options)


def _one_to_one(seed):
    return NegativeDownsampler(random_state=seed)


def _all_positives(model):
    return Method(model, train="all positives", shift=float(np.log(KEEP_RATE)))


def whole_log(seeds, log, checkpoint=None, only=None):
    """Return the part "log": `compare` on the natural test."""
    frames = []
    for (learner, name), (method, n_seeds) in log_methods().items():
        if only is not None and (learner, name) not in only:
            continue
        print(f"log: {learner}, {name}", flush=True)
        runs = compare(
            {f"{learner}: {name}": method},
            log.trains,
            log.test,
            seeds=list(seeds)[:n_seeds],
            n_replicates=200,
            checkpoint=checkpoint,
            progress=False,
        )
        runs = runs.rename(index=lambda entry: entry.partition(": ")[2], level="method")
        frames.append(_indexed(runs, part="log", data="promotion log", learner=learner))
    return pd.concat(frames)


# --- all of it ----------------------------------------------------------------------------------


def _indexed(frame, **levels):
    """Give a frame all levels of `INDEX`, in order."""
    frame = frame.reset_index().assign(**levels)
    if "replicate" not in frame:
        frame["replicate"] = WHOLE
    return frame.set_index(INDEX)


def _kept(checkpoint, name, make, *arguments):
    """What `make` returns, read back if an interrupted run has left it."""
    if checkpoint is None:
        return make(*arguments)
    path = Path(checkpoint) / f"{name}.parquet"
    if not path.exists():
        frame = make(*arguments)
        with replacing(path) as unfinished:
            frame.to_parquet(unfinished)
    return pd.read_parquet(path)


def run(seeds=range(5), checkpoint=None):
    seeds = list(seeds)
    found = [small(seeds[:N_SPLITS], checkpoint)]
    log = Log()
    found.append(sizes(seeds, log, checkpoint))
    found.append(whole_log(seeds, log, checkpoint))
    return pd.concat(found)


if __name__ == "__main__":
    studies.main(run)
