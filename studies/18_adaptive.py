"""Study of chapter 18: training schedules and a ratio chosen online, against a fixed ratio.

All networks have one hidden layer of 64. All but "nothing" learn from every positive of weeks 20
to 40 and 1 % of the negatives, in about as many steps. Every one is served with the shift that the
labels of weeks 41 to 44 ask for; the shift that a formula gives is noted beside it.
"""

import gc
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from recbal_utils import adaptive, calibrate, datasets, evaluate, monitor, studies
from recbal_utils._atomic import replacing
from recbal_utils.adaptive import Stage, StagedNetwork, online_ratio
from recbal_utils.compare import WHOLE, Method, Test, compare
from recbal_utils.explore import DiscountedThompson
from recbal_utils.models import preprocessing

KEEP_RATE = 0.01
RATIOS = (0.3, 1, 3, 10)  # arms: negatives per positive
ROUNDS, STEPS = 36, 40
N_SEEDS = 2  # of those given
DRIFT = 0.1  # nats a week, as in the chapter
THINNED = 32  # one negative in so many, weighted, for the gain of a round
PLAIN = "fixed ratio"
KEPT = "log-odds-{seed}.npz"  # of the fixed ratio's network, for the weeks of the test
SCHEDULES = {
    PLAIN: (Stage(4),),
    "deferred re-weighting": (Stage(2), Stage(2, "balanced")),
    "decoupled": (Stage(3), Stage(1, "balanced", head_only=True)),
    "hard negatives": (Stage(2), Stage(2, hardest=0.25)),
}


class Blind:
    """Chooses arms at random: what a bandit must beat."""

    def __init__(self, n_arms, seed):
        self._n_arms, self._rng = n_arms, np.random.default_rng(seed)

    def choose(self):
        return int(self._rng.integers(self._n_arms))

    def update(self, arm, reward):
        pass


class Served:
    """A network with the shift that labels of the choosing weeks ask for, and notes on it.

    `train(X, y, seed)` returns log-odds as a function of X, the shift that a formula gives (NaN
    for none), and a dict of more to note. `kept` is a file for the log-odds as they left training.
    """

    def __init__(self, train, choose, notes, seed, kept=None):
        self.train, self.choose, self.notes, self.seed = train, choose, notes, seed
        self.kept = kept

    def fit(self, X, y):
        gc.collect()  # the last network holds a copy of the rows until then
        self.log_odds, formula, told = self.train(X, y, self.seed)
        X_choose, labels = self.choose[:2]
        self.chosen = self.log_odds(X_choose)
        p = expit(self.chosen)
        self.shift = calibrate.calibration_intercept(labels, p)
        by_formula = calibrate.shift_log_odds(p, formula) if np.isfinite(formula) else None
        found = {
            "measured_shift": self.shift,
            "formula_shift": formula,
            "raw_ratio": evaluate.ratio(labels, p),
            "formula_ratio": np.nan if by_formula is None else evaluate.ratio(labels, by_formula),
            **told,
        }
        with replacing(self.notes) as part:
            part.write_text(json.dumps(found))
        return self

    def predict_proba(self, X):
        z = self.log_odds(X)
        if self.kept is not None:
            with replacing(self.kept) as part, part.open("wb") as file:
                np.savez(file, choose=self.chosen, test=z)
        p = expit(z + self.shift)
        return np.column_stack([1 - p, p])


def staged(stages, keep_rate=KEEP_RATE, **settings):
    """Training in stages; the formula undoes the last stage's weights and the keep rate."""

    def train(X, y, seed):
        model = StagedNetwork(stages, random_state=seed, **settings).fit(X, y)
        formula = np.log(keep_rate) - model.log_odds_shift_
        return model.trainer_.log_odds, formula, {"steps": model.n_steps_}

    return train


def online(chooser, validation=None):
    """A ratio chosen round by round; its log-odds are natural, so the formula adds nothing."""
    X_valid, labels, weight = validation or (None, None, None)

    def gain_on(log_odds):
        if X_valid is None:
            return 0.0
        return -evaluate.log_loss(labels, expit(log_odds(X_valid)), weight)

    def train(X, y, seed):
        trainer, arms = online_ratio(
            X,
            y,
            gain_on,
            RATIOS,
            chooser(seed),
            rounds=ROUNDS,
            steps=STEPS,
            keep_rate=KEEP_RATE,
            seed=seed,
        )
        share = np.bincount(arms, minlength=len(RATIOS)) / len(arms)
        told = {f"share_{ratio:g}": s for ratio, s in zip(RATIOS, share, strict=True)}
        return trainer.log_odds, 0.0, {"steps": ROUNDS * STEPS, **told}

    return train


def validation(choose):
    """Every positive of the choosing weeks and some negatives, weighted to their number."""
    X, y = choose[:2]
    kept = (y == 1) | (np.arange(len(y)) % THINNED == 0)
    return X[kept], y[kept], np.where(y[kept] == 1, 1.0, THINNED)


def fixed(ratio):
    """One ratio for good, by the same steps as the bandit."""

    class Always(Blind):
        def choose(self):
            return RATIOS.index(ratio)

    return lambda seed: Always(len(RATIOS), seed)


def trainings(choose):
    """Name -> (training set, training)."""
    valid = validation(choose)
    natural = staged((Stage(3),), 1.0, batch_size=2048, learning_rate=0.008)
    found = {"nothing": ("natural", natural)}
    found |= {name: ("all positives", staged(stages)) for name, stages in SCHEDULES.items()}
    bandit = {
        "ratio by bandit": lambda seed: DiscountedThompson(len(RATIOS), seed=seed),
        "ratio at random": lambda seed: Blind(len(RATIOS), seed),
    }
    return found | {name: ("all positives", online(c, valid)) for name, c in bandit.items()}


def data():
    """Training sets by name; choosing weeks: X, y, week, visit; the test, and its weeks."""
    scale = preprocessing()

    def scaled(table):
        X = datasets.matrix(table)
        return np.float32(scale.transform(X)), table.conversion.to_numpy()

    natural = datasets.training_table(keep_rate=KEEP_RATE, keep_positives=False)
    scale.fit(datasets.matrix(natural))
    trains = {"natural": scaled(natural)}
    del natural  # tables are large, so one at a time
    trains["all positives"] = scaled(datasets.training_table(keep_rate=KEEP_RATE))
    rows = datasets.visit_table(datasets.CHOOSE_WEEKS, share=datasets.CHOOSE_SHARE)
    choose = *scaled(rows), rows.week.to_numpy(), rows.visit.to_numpy()
    del rows
    rows = datasets.visit_table()
    test = Test(
        *scaled(rows),
        groups=rows["household_id"].to_numpy(),
        visits=rows["visit"].to_numpy(),
        segments=datasets.segments(rows)[["tier"]],
    )
    return trains, choose, test, rows["week"].to_numpy()


def grid(trains, choose, seeds, checkpoint):
    """Entropy in the choosing weeks by every fixed ratio: the search that a bandit would save."""
    rows = []
    for seed in seeds:
        path = checkpoint / f"grid-{seed}.json"
        if not path.exists():
            found = {}
            for ratio in RATIOS:
                log_odds = online(fixed(ratio))(*trains["all positives"], seed)[0]
                p = expit(log_odds(choose[0][::4]))
                found[ratio] = evaluate.normalised_entropy(choose[1][::4], p)
            with replacing(path) as part:
                part.write_text(json.dumps(found))
            print(f"grid of {len(RATIOS)} fixed ratios, seed {seed}", flush=True)
        for ratio, value in json.loads(path.read_text()).items():
            rows.append({"method": f"grid {ratio}", "seed": seed, "choose_entropy": value})
    return pd.DataFrame(rows).assign(replicate=WHOLE)


def schedules(trains, choose, test, seeds, checkpoint, n_replicates=200):
    """Runs of `compare`, with the notes of each training as further columns."""
    notes, methods = {}, {}
    for name, (train, how) in trainings(choose).items():
        for seed in seeds:
            notes[name, seed] = checkpoint / f"note-{name.replace(' ', '-')}-{seed}.json"

        def model(seed, name=name, how=how):
            kept = checkpoint / KEPT.format(seed=seed) if name == PLAIN else None
            return Served(how, choose, notes[name, seed], seed, kept)

        methods[name] = Method(model, train=train)
    runs = compare(
        methods, trains, test, seeds=seeds, n_replicates=n_replicates, checkpoint=checkpoint
    )
    told = {(*key, WHOLE): json.loads(path.read_text()) for key, path in notes.items()}
    return runs.join(pd.DataFrame.from_dict(told, orient="index").rename_axis(runs.index.names))


def weekly(choose, test, test_weeks, seed, checkpoint, n_replicates=200):
    """The fixed ratio's network in weeks 45 to 48, with the shifts that earlier labels ask for.

    Its log-odds are those that `schedules` has kept.
    """
    path = checkpoint / "weekly.parquet"
    if not path.exists():
        formula = np.log(KEEP_RATE)
        with np.load(checkpoint / KEPT.format(seed=seed)) as kept:
            p_choose, p = expit(kept["choose"] + formula), expit(kept["test"] + formula)
        shifts = weekly_shifts(choose, p_choose, test.y, test_weeks, p)
        settings = {"groups": test.groups, "metrics": ["normalised_entropy", "ratio"]}
        frames = {}
        for name, shift in shifts.items():
            q = expit(logit(p) + shift)
            frame = evaluate.replicates(test.y, q, n_replicates=n_replicates, **settings)
            frame.loc[WHOLE] = [getattr(evaluate, m)(test.y, q) for m in settings["metrics"]]
            frames[f"served, {name}", seed] = frame
        found = pd.concat(frames, names=["method", "seed", "replicate"])
        with replacing(path) as part:
            found.to_parquet(part)
        print("weeks 45 to 48, served in five ways", flush=True)
    return pd.read_parquet(path)


def weekly_shifts(choose, p_choose, y, test_weeks, p):
    """Name -> what is added to the log-odds of each test row, from labels of earlier weeks."""
    spread = monitor.overdispersion(choose[1], p_choose, choose[3])
    weeks = [
        (labels[week_of == week], q[week_of == week])
        for labels, q, week_of in ((choose[1], p_choose, choose[2]), (y, p, test_weeks))
        for week in np.unique(week_of)
    ]
    asked = [calibrate.calibration_intercept(*week) for week in weeks]
    error = [spread / np.sum(q * (1 - q)) for _, q in weeks]
    at = np.searchsorted(np.unique(test_weeks), test_weeks) + len(np.unique(choose[2]))
    once = calibrate.calibration_intercept(choose[1], p_choose)
    drifts = {"last week": np.inf, "all weeks": 0, "tracked": DRIFT}
    shifts = {"by formula": 0.0, "corrected once": once}
    return shifts | {n: adaptive.track(asked, error, drift)[at] for n, drift in drifts.items()}


def run(seeds=range(N_SEEDS), checkpoint=None, n_replicates=200):
    """All in one frame; rows of "grid ..." have one column of their own."""
    seeds = list(seeds)[:N_SEEDS]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(checkpoint or folder)
        trains, choose, test, weeks = data()
        runs = schedules(trains, choose, test, seeds, checkpoint, n_replicates)
        found = grid(trains, choose, seeds[:1], checkpoint)
        live = weekly(choose, test, weeks, seeds[0], checkpoint, n_replicates)
    return pd.concat([runs, found.set_index(["method", "seed", "replicate"]), live])


if __name__ == "__main__":
    studies.main(run)
