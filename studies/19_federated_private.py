"""Study of chapter 19: stores that keep their logs, training with noise, and rows from a GAN.

Stores: pooled training, each store alone, federated averaging, and federated averaging after SMOTE
at every store. Noise: DP-SGD by household and by row. All are trained on every conversion of weeks
20 to 40 and a quarter of a hundredth of the other impressions; passes, steps and step sizes were
chosen on weeks 41 to 44; the test is every third household's visits of weeks 45 to 48.
"""

import time

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE
from scipy.special import expit

from recbal_utils import contest, datasets, federated, private, studies
from recbal_utils.compare import Test
from recbal_utils.gan import GANSampler

KEEP_RATE = 0.01  # of the negatives, in the sample that the chapters share
THINNED = 0.25  # of these, kept here
BETA = KEEP_RATE * THINNED
BATCH, HIDDEN = 64, 32
EVERY = 3  # test on one household in so many
DRAWS = 100
SIZES = ("small", "middle", "large")

# Passes over the rows a round, rounds, and step size.
POOLED = {"passes": 1, "rounds": 4, "learning_rate": 0.3}
ALONE = {"passes": 1, "rounds": 4, "learning_rate": 0.2}
FEDERATED = {"passes": 3, "rounds": 4, "learning_rate": 1.0}
BALANCED = {**FEDERATED, "passes": 2}  # of more rows: about as many steps

DELTA = 1e-4  # below one over the number of households
HOUSEHOLD_ROWS = 32  # drawn from a household in a step
BY_HOUSEHOLD = {"rate": 0.1, "steps": 200, "norm": 1.0}
STEP_SIZE = {np.inf: 1.0, 8: 0.6, 1: 0.3}  # by household-level ε
BY_ROW = {"steps": 200, "learning_rate": 0.3}
ROW_BATCH = 1024
NORMS = {"row: no clipping": 1e9, "row: clipping at 1": 1.0}

N_MEMBERS, N_SYNTHETIC = 1000, 10_000


class Lab:
    """Training rows, their stores and households, and the rows of the test."""

    def __init__(self):
        table = datasets.training_table(keep_rate=KEEP_RATE)
        drawn = np.random.default_rng(0).random(len(table)) < THINNED
        self.train = table[drawn | (table[datasets.LABEL] == 1)].reset_index(drop=True)
        raw = self.clients(datasets.matrix(self.train))
        self.scale = federated.moments(raw)
        self.stores = [federated.standardised(client, *self.scale) for client in raw]
        self.X = self.features(self.train)
        self.y = self.train[datasets.LABEL].to_numpy()
        self.rate = self.y.mean()
        test = datasets.visit_table()
        self.test_rows = test[test["household_id"] % EVERY == 0].reset_index(drop=True)
        self.X_test = self.features(self.test_rows)
        self.test = Test.of_log(self.test_rows, np.zeros((len(self.test_rows), 1)))

    def scaled(self, raw):
        """Standardised by what the stores' secure sums say."""
        mean, deviation = self.scale
        return ((np.log1p(raw) - mean) / deviation).astype(np.float32)

    def features(self, table):
        return self.scaled(datasets.matrix(table))

    def clients(self, X):
        return federated.clients_of(X, self.train[datasets.LABEL], self.train["store_id"])

    def network(self, seed):
        return federated.network(self.X.shape[1], HIDDEN, self.rate, seed)

    def segments(self):
        """Of the test rows: tier, kind of household, and size of the store's log."""
        sizes = self.train.groupby("store_id")["weight"].sum().rank(pct=True)
        cut = pd.cut(sizes, [0, 1 / 3, 2 / 3, 1], labels=SIZES).astype(str)
        store = self.test_rows["store_id"].map(cut).fillna("small")
        found = {k: v.astype(str) for k, v in datasets.segments(self.test_rows).items()}
        return {**found, "store": store}


# --- stores ---------------------------------------------------------------------------------------


def trained(lab, clients, seed, passes, rounds, learning_rate, after_round=None):
    """Weights of one federated training."""
    model = lab.network(seed)
    local = federated.LocalTraining(model, BATCH, passes)
    settings = {"rounds": rounds, "learning_rate": learning_rate, "seed": seed}
    return federated.fed_avg(
        model.get_weights(), clients, local, **settings, after_round=after_round
    )


def pooled(lab, seed):
    """One client that holds all rows: what a central team would train."""
    weights = trained(lab, [federated.Client("all", lab.X, lab.y)], seed, **POOLED)
    return {"pooled": federated.log_odds(weights, lab.X_test) + np.log(BETA)}


def alone(lab, seed):
    """A model for each store; visits to a store that was not there in training get the rate."""
    z = np.full(len(lab.X_test), np.log(lab.rate / (1 - lab.rate)))
    model = lab.network(seed)
    start, local = model.get_weights(), federated.LocalTraining(model, BATCH, ALONE["passes"])
    settings = {"rounds": ALONE["rounds"], "learning_rate": ALONE["learning_rate"], "seed": seed}
    for client in lab.stores:
        here = (lab.test_rows["store_id"] == int(client.name)).to_numpy()
        weights = federated.fed_avg(start, [client], local, **settings)
        z[here] = federated.log_odds(weights, lab.X_test[here])
    return {"alone": z + np.log(BETA)}


def averaged(lab, seed):
    """Federated averaging of all stores; one known shift undoes the thinning."""
    weights = trained(lab, lab.stores, seed, **FEDERATED)
    return {"federated": federated.log_odds(weights, lab.X_test) + np.log(BETA)}


def balanced(client, seed):
    """A store's rows with SMOTE up to one to one."""
    X, y = SMOTE(random_state=seed).fit_resample(client.X, client.y)
    return federated.Client(client.name, X, y)


def smote(lab, seed):
    """Federated averaging after SMOTE at each store: as it is, and two ways to undo the balance."""
    clients = [balanced(client, seed) for client in lab.stores]
    z = federated.log_odds(trained(lab, clients, seed, **BALANCED), lab.X_test)
    odds = {client.name: client.y.mean() for client in lab.stores}
    log_odds = {int(name): np.log(p / (1 - p) * BETA) for name, p in odds.items()}
    everywhere = np.log(lab.rate / (1 - lab.rate) * BETA)
    own = lab.test_rows["store_id"].map(log_odds).fillna(everywhere).to_numpy()
    return {
        "SMOTE at each store": z,
        "SMOTE at each store, one shift": z + everywhere,
        "SMOTE at each store, own shifts": z + own,
    }


# --- noise ----------------------------------------------------------------------------------------


class Households:
    """Draws rows of households: units of DP-SGD."""

    def __init__(self, lab):
        self.X, self.y = lab.X, lab.y.astype(np.float32)
        ids = lab.train["household_id"].to_numpy()
        self.order = np.argsort(ids, kind="stable")
        _, self.start, self.size = np.unique(ids[self.order], return_index=True, return_counts=True)

    def __len__(self):
        return len(self.size)

    def rows(self, units, rng):
        """`HOUSEHOLD_ROWS` rows of each of these households, drawn with replacement."""
        within = rng.random((len(units), HOUSEHOLD_ROWS)) * self.size[units][:, None]
        chosen = self.order[self.start[units][:, None] + within.astype(int)]
        return self.X[chosen], self.y[chosen]


def by_household(lab, seed, epsilon):
    """Log-odds on the test, of DP-SGD whose unit is a household; ε = inf clips and adds nothing."""
    units, model = Households(lab), lab.network(seed)
    settings = {**BY_HOUSEHOLD, "noise": noise_of(epsilon), "learning_rate": STEP_SIZE[epsilon]}
    private.PrivateTraining(model, **settings, seed=seed).fit(len(units), units.rows)
    return federated.log_odds(model.get_weights(), lab.X_test) + np.log(BETA)


def by_row(lab, seed, norm):
    """Log-odds on the test, of clipped SGD without noise whose unit is a row."""
    model, y = lab.network(seed), lab.y.astype(np.float32)
    settings = {**BY_ROW, "rate": ROW_BATCH / len(y), "noise": 0.0, "norm": norm, "seed": seed}
    one_row = lambda units, rng: (lab.X[units][:, None], y[units][:, None])
    private.PrivateTraining(model, **settings).fit(len(y), one_row)
    return federated.log_odds(model.get_weights(), lab.X_test) + np.log(BETA)


def noise_of(epsilon):
    """Noise for a household-level ε, in units of the clipping norm."""
    if np.isinf(epsilon):
        return 0.0
    return private.noise_for(epsilon, BY_HOUSEHOLD["rate"], BY_HOUSEHOLD["steps"], DELTA)


def household_name(epsilon):
    """How the chapter calls a household-level training."""
    return f"household: ε = {'∞' if np.isinf(epsilon) else epsilon}"


def ways():
    """What is trained, by name: `way(lab, seed)` returns natural log-odds of one entry or more."""
    found = {"pooled": pooled, "alone": alone, "federated": averaged, "SMOTE": smote}
    for epsilon in STEP_SIZE:
        found[household_name(epsilon)] = lambda lab, seed, e=epsilon: {
            household_name(e): by_household(lab, seed, e)
        }
    for name, norm in NORMS.items():
        found[name] = lambda lab, seed, name=name, norm=norm: {name: by_row(lab, seed, norm)}
    return found


# --- synthetic rows -------------------------------------------------------------------------------


def members(train, seed=0):
    """Purchases of one half of the households, and as many of the other half, as raw features."""
    bought = train[train[datasets.LABEL] == 1]
    rng = np.random.default_rng(seed)
    households = rng.permutation(bought["household_id"].unique())
    inside = bought["household_id"].isin(households[: len(households) // 2])
    parts = (bought[inside], bought[~inside])
    return [datasets.matrix(part.sample(N_MEMBERS, random_state=seed)) for part in parts]


def smote_rows(lab, inside, seed=0):
    """Rows that SMOTE makes of the members alone; both standardised."""
    others = lab.X[lab.y == 0][:N_MEMBERS]
    X, y = np.vstack([others, inside]), np.repeat([0, 1], N_MEMBERS)
    sampler = SMOTE(sampling_strategy={1: N_MEMBERS + N_SYNTHETIC}, random_state=seed)
    return sampler.fit_resample(X, y)[0][2 * N_MEMBERS :]


def gan_rows(lab, seed, max_steps=600):
    """Rows made by a GAN that saw the members only, raw features; and the seconds it took."""
    inside, _ = members(lab.train, seed)
    others = datasets.matrix(lab.train[lab.train[datasets.LABEL] == 0].head(N_MEMBERS))
    X, y = np.vstack([others, inside]), np.repeat([0, 1], N_MEMBERS)
    strategy = {1: N_MEMBERS + N_SYNTHETIC}
    sampler = GANSampler(
        sampling_strategy=strategy, random_state=seed, max_steps=max_steps, hidden=(64, 64)
    )
    return sampler.fit_resample(X, y)[0][2 * N_MEMBERS :]


# --- all of it ------------------------------------------------------------------------------------


def judged(lab, entries, seed):
    """Metrics on the whole test and by segment, with draws of households."""
    first, frames = None, []
    for name, z in entries.items():
        p = expit(z)
        whole = contest.runs({name: {seed: p}}, lab.test, n_replicates=DRAWS)
        frames.append(pd.concat({"all": whole}, names=["segment"]))
        if first is None:
            first = contest.by_segment(
                lab.test.y,
                p,
                lab.segments(),
                groups=lab.test.groups,
                metrics=["roc_auc"],
                n_replicates=DRAWS,
            )
            for (part, segment), draws in first.groupby(level=["part", "segment"]):
                keys = [(f"{part}: {segment}", name, seed)]
                draws = draws.droplevel(["part", "segment"])
                frames.append(pd.concat({keys[0]: draws}, names=["segment", "method", "seed"]))
    order = ["segment", "method", "seed", "replicate"]
    return pd.concat([frame.reorder_levels(order) for frame in frames])


def one(lab, way, seed):
    """Train and judge one way with one seed."""
    started = time.process_time()
    entries = way(lab, seed)
    spent = time.process_time() - started
    return judged(lab, entries, seed).assign(core_seconds=spent)


def models(seeds, checkpoint=None, lab=None):
    """Every way with every seed."""
    lab, frames = lab or Lab(), []
    jobs = [(name, way, seed) for seed in seeds for name, way in ways().items()]
    for number, (name, way, seed) in enumerate(jobs, start=1):
        started = time.perf_counter()
        place = f"{number}-{seed}"
        frames.append(
            studies.kept(checkpoint, place, lambda way=way, seed=seed: one(lab, way, seed))
        )
        print(
            f"[{number}/{len(jobs)}] {name}, seed {seed}: {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    return pd.concat(frames)


def gan(checkpoint=None, lab=None, seed=0):
    """Synthetic rows of the GAN, as a frame with the features' names."""
    make = lambda: pd.DataFrame(gan_rows(lab or Lab(), seed), columns=list(datasets.FEATURES))
    return studies.kept(checkpoint, f"gan-{seed}", make)


def run(seeds=range(3), checkpoint=None):
    """Return the judged models, and below them (segment "GAN") the GAN's rows."""
    lab = Lab()
    print(f"{len(lab.train):,} rows of {len(lab.stores)} stores", flush=True)
    rows = gan(checkpoint, lab).astype(float)
    print("GAN trained", flush=True)
    keys = [("GAN", "GAN", 0, i) for i in range(len(rows))]
    rows.index = pd.MultiIndex.from_tuples(keys, names=["segment", "method", "seed", "replicate"])
    return pd.concat([models(seeds, checkpoint, lab), rows])


if __name__ == "__main__":
    studies.main(lambda seeds, checkpoint: run(seeds[:3], checkpoint))
