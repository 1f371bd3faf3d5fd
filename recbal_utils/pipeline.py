"""From the log to scored visits: diagnose, balance, search, judge, go back or export.

`Pipeline` takes rows with features and leaves a model in one file. Each step writes what it found
into a folder before the next one starts, so that a run that was killed goes on where it was and
ends with the same model. The other functions give the book's own run to its later chapters.
"""

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from recbal_utils import _rich_tables, calibrate, datasets, evaluate, export, features, studies
from recbal_utils._atomic import replacing
from recbal_utils.drift import Reference
from recbal_utils.errors import RecbalError
from recbal_utils.models import NetworkClassifier, preprocessing

STUDY = "13_pipeline"
FEATURES = _rich_tables.FEATURES
PLAIN = features.NUMERIC
BALANCED_ENOUGH = 20.0  # negatives per positive below which nothing is dropped
CHUNK_ROWS = 200_000
METRICS = ("roc_auc", "average_precision", "normalised_entropy", "ratio")


@dataclass(frozen=True)
class Rows:
    """Rows with features: X (n, d), y (n,) of 0 and 1, how many rows each stands for, names."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    names: tuple

    def columns(self, names) -> np.ndarray:
        """Return X with the named columns only."""
        return self.X[:, [self.names.index(name) for name in names]]


@dataclass(frozen=True)
class Settings:
    """What the pipeline may spend, and the bar it has to meet.

    Attributes
    ----------
    attempts : mapping of str to tuple of str
        Names of the features of each round of the loop, cheapest first; as many rounds at most.
    bar : mapping of str to (low, high)
        What the metrics on the rows to choose on have to lie between.
    trials : int
        Trainings of the search in each round.
    search_rows : int
        Rows of each of these trainings.
    negatives : float
        Negatives per positive kept for training where there are more than `BALANCED_ENOUGH`.
    epochs, search_epochs : int
        Passes over the rows of the last training, and of those of the search.
    seeds : tuple of int
        A model is trained with each; the first is exported.
    """

    attempts: Mapping[str, tuple]
    bar: Mapping[str, tuple]
    trials: int = 5
    search_rows: int = 200_000
    negatives: float = 5.0
    epochs: int = 4
    search_epochs: int = 3
    seeds: tuple = (0,)


@dataclass
class Outcome:
    """What a run found: the diagnosis, every trial, the rounds, and the models' files."""

    diagnosis: dict
    trials: pd.DataFrame
    rounds: pd.DataFrame
    models: dict = field(default_factory=dict)

    @property
    def exported(self) -> bool:
        """Whether a round met the bar."""
        return bool(self.models)


class Pipeline:
    """Diagnose, balance, search, judge; meet the bar and export, or go back.

    Parameters
    ----------
    settings : Settings
    folder : Path
        Where the steps leave what they found. Runs with other settings do not share it.
    progress : callable, default print
        Called with a line after each step.
    """

    def __init__(self, settings: Settings, folder, *, progress: Callable[[str], None] = print):
        self.settings = settings
        self.progress = progress
        text = json.dumps(asdict(settings), sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:12]

    def run(self, train: Rows, choose: Rows) -> Outcome:
        """Learn from `train`, choose on `choose`.

        Raises
        ------
        RecbalError
            If either holds one class only, or a feature of an attempt is missing.
        """
        _check(train, choose, self.settings)
        diagnosis = self._step("diagnosis", lambda: diagnose(train, self.settings))
        rounds, trials = [], []
        for number, (name, names) in enumerate(self.settings.attempts.items(), start=1):
            found = self._search(number, name, names, train, choose, diagnosis)
            best = min(found, key=lambda trial: trial["normalised_entropy"])
            met = meets(best, self.settings.bar)
            rounds.append({"round": number, "attempt": name, "met": met, **best})
            trials += found
            self.progress(f"round {number}, {name}: {'meets' if met else 'below'} the bar")
            if met:
                break
        outcome = Outcome(diagnosis, pd.DataFrame(trials), pd.DataFrame(rounds))
        if rounds[-1]["met"]:
            outcome.models = self._train(names, best, train, diagnosis)
        return outcome

    def _search(self, number, name, names, train, choose, diagnosis):
        """Trials of a round; each is a function of those before it, so a restart repeats none."""
        rows = balanced(train, diagnosis["kept_negatives"], seed=number)
        part = np.random.default_rng(number).permutation(len(rows))[: self.settings.search_rows]
        part = np.sort(rows[part])
        data = train.columns(names)[part], train.y[part]
        judged = choose.columns(names)
        found = []
        for trial in range(self.settings.trials):
            train_one = functools.partial(
                self._trial, trial, found, data, (judged, choose), diagnosis
            )
            done = self._step(f"round-{number}-trial-{trial}", train_one)
            found.append({"round": number, "attempt": name, "trial": trial, **done})
        return found

    def _trial(self, number, found, data, choose, diagnosis):
        chosen = suggest(found, number)
        model = network(chosen, self.settings.search_epochs, seed=0).fit(*data)
        X, rows = choose
        p = model.predict_proba(X)[:, 1]
        # The rows of a trial are drawn from the balanced ones, so their shift is the same.
        p = calibrate.shift_log_odds(p, diagnosis["log_odds_shift"])
        scores = {m: getattr(evaluate, m)(rows.y, p, rows.weight) for m in METRICS}
        return {**chosen, **scores}

    def _train(self, names, best, train, diagnosis):
        """Train with each seed on all balanced rows; returns {seed: file of the model}."""
        found = {}
        for seed in self.settings.seeds:
            path = self.folder / f"model-{seed}.npz"
            if not path.exists():
                rows = balanced(train, diagnosis["kept_negatives"], seed)
                X, y = train.columns(names)[rows], train.y[rows]
                model = network(best, self.settings.epochs, seed).fit(X, y)
                self.folder.mkdir(parents=True, exist_ok=True)
                export.save_model(
                    path,
                    model,
                    names,
                    log_odds_shift=diagnosis["log_odds_shift"],
                    prior=diagnosis["rate"],
                    reference=Reference.learn(natural(X, y, diagnosis["keep_rate"], seed), names),
                    rows=X[:256],
                )
                self.progress(f"trained with seed {seed} on {len(y):,} rows")
            found[seed] = path
        return found

    def _step(self, name, compute):
        """What a step found, from its file where it was done before."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            found = compute()
            with replacing(path) as part:
                part.write_text(json.dumps(found))
            self.progress(f"{name}: done")
        return json.loads(path.read_text())


# --- the steps ----------------------------------------------------------------------------------


def diagnose(train: Rows, settings: Settings) -> dict:
    """Count the classes as they were in the log, and decide how many negatives to keep.

    Returns
    -------
    dict
        positives, negatives (of the log), rate, ratio (negatives per positive), kept_negatives,
        keep_rate (of the log's negatives), log_odds_shift (what undoes it, in nats).
    """
    positives = float(train.weight[train.y == 1].sum())
    negatives = float(train.weight[train.y == 0].sum())
    held = int((train.y == 0).sum())
    ratio = negatives / positives
    kept = held if ratio <= BALANCED_ENOUGH else min(held, round(settings.negatives * positives))
    return {
        "positives": positives,
        "negatives": negatives,
        "rate": positives / (positives + negatives),
        "ratio": ratio,
        "kept_negatives": kept,
        "keep_rate": kept / negatives,
        "log_odds_shift": float(np.log(kept / negatives)),
    }


def balanced(train: Rows, kept_negatives: int, seed: int) -> np.ndarray:
    """Positions of every positive and so many negatives at random, sorted."""
    negatives = np.flatnonzero(train.y == 0)
    drawn = np.random.default_rng(seed).choice(negatives, kept_negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(train.y == 1), drawn]))


def natural(X, y, keep_rate, seed=0) -> np.ndarray:
    """Rows of X with positives thinned like the negatives were: the log's own rate."""
    kept = np.random.default_rng(seed).random(len(y)) < keep_rate
    return X[(y == 0) | kept]


def suggest(found: list, number: int) -> dict:
    """Hyperparameters of the next trial, from those before it (optuna's TPE); 0 is a fixed start.

    Parameters
    ----------
    found : list of dict
        Trials so far, each with its hyperparameters and "normalised_entropy".
    number : int
        Of the trial; with the same trials before it, the same number gets the same answer.
    """
    start = {"hidden": "128-64", "learning_rate": 0.008, "batch_size": 2048}
    if number == 0:
        return start
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {
        "hidden": optuna.distributions.CategoricalDistribution(("64", "128-64", "256-64")),
        "learning_rate": optuna.distributions.FloatDistribution(0.001, 0.02, log=True),
        "batch_size": optuna.distributions.CategoricalDistribution((1024, 2048, 4096)),
    }
    sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=3)
    study = optuna.create_study(sampler=sampler)
    for trial in found:
        done = optuna.trial.create_trial(
            params={name: trial[name] for name in space},
            distributions=space,
            value=trial["normalised_entropy"],
        )
        study.add_trial(done)
    return study.ask(space).params


def _optuna():
    """Import optuna without its advice on progress bars, which are not shown here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import optuna
    return optuna


def network(chosen: dict, epochs: int, seed: int):
    """Return an unfitted pipeline of preprocessing and network."""
    import keras

    return make_pipeline(
        preprocessing(),
        NetworkClassifier(
            hidden=tuple(int(units) for units in chosen["hidden"].split("-")),
            epochs=epochs,
            batch_size=int(chosen["batch_size"]),
            learning_rate=chosen["learning_rate"],
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            logits=True,
            initial_rate="train",
            random_state=seed,
        ),
    )


def meets(scores: Mapping, bar: Mapping) -> bool:
    """Whether every metric of the bar lies between its limits."""
    return all(low <= scores[name] <= high for name, (low, high) in bar.items())


def score(model: export.ScoringModel, X: np.ndarray, columns=None) -> np.ndarray:
    """Return corrected probabilities of a model from a file, float64, in pieces to spare memory."""
    parts = [X[i : i + CHUNK_ROWS] for i in range(0, len(X), CHUNK_ROWS)]
    parts = parts if columns is None else [part[:, columns] for part in parts]
    return np.concatenate([model.probabilities(part) for part in parts])


def _check(train, choose, settings):
    for name, rows in {"train": train, "choose": choose}.items():
        if len(np.unique(rows.y)) != 2:
            raise RecbalError(f"The rows to {name} on hold one class only: take more weeks.")
        wanted = {feature for names in settings.attempts.values() for feature in names}
        if missing := sorted(wanted - set(rows.names)):
            raise RecbalError(f"The rows to {name} on lack the feature {', '.join(missing)}.")
    if not settings.attempts or settings.trials < 1:
        raise RecbalError("The pipeline needs one attempt and one trial at least.")


# --- the log ------------------------------------------------------------------------------------


def training_rows(weeks=datasets.TRAIN_WEEKS, keep_rate=0.01) -> Rows:
    """Every positive of the weeks and a share of the negatives, with `FEATURES`."""
    path = _rich_tables.training_file(tuple(weeks), keep_rate)
    table = pd.read_parquet(path, columns=["conversion", "weight"])
    y, weight = table["conversion"].to_numpy(), table["weight"].to_numpy(np.float64)
    return Rows(_rich_tables.matrix(path), y, weight, FEATURES)


# --- what later chapters read -------------------------------------------------------------------


def folder() -> Path:
    """Where the study of chapter 13 leaves its models and predictions."""
    return studies._folder() / STUDY


def predictions(period: str = "test") -> pd.DataFrame:
    """Predictions of the study's models for whole visits at their natural rate.

    Parameters
    ----------
    period : {"test", "closed"}
        Weeks 45 to 48, or 49 to 52.

    Returns
    -------
    pandas.DataFrame
        The rows of `datasets.visit_table`, in its order: household_id, store_id, week,
        product_id, conversion, visit, and a float32 column "<model>@<seed>" for each model.

    Raises
    ------
    RecbalError
        Unknown period, or the study fails.
    """
    if period not in ("test", "closed"):
        raise RecbalError(f"period is {period!r}; choose 'test' or 'closed'.")
    return pd.read_parquet(_made(f"predictions-{period}.parquet"))


def scores(frame: pd.DataFrame, model: str) -> dict:
    """Return {seed: predictions} of one model of a frame of `predictions`, float64."""
    found = {
        int(name.rpartition("@")[2]): frame[name].to_numpy(np.float64)
        for name in frame.columns
        if name.rpartition("@")[0] == model
    }
    if not found:
        known = sorted({name.rpartition("@")[0] for name in frame.columns if "@" in name})
        raise RecbalError(f"There are no predictions of {model!r}; there are {', '.join(known)}.")
    return found


def model_path() -> Path:
    """The exported model of chapter 13, for `export.load_model` and `serve`."""
    return _made("model.npz")


def trained_model() -> export.ScoringModel:
    """Return the exported model of chapter 13, loaded."""
    return export.load_model(model_path())


def features_for(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `FEATURES` of impressions, as of the week before each.

    Parameters
    ----------
    rows : pandas.DataFrame
        household_id, store_id, week, product_id, display, mailer, as `datasets.visit_table`.

    Returns
    -------
    pandas.DataFrame
        Float32 columns `FEATURES`, with the index of `rows`.
    """
    keys = [*datasets.IMPRESSION_KEYS, "display", "mailer"]
    if missing := [name for name in keys if name not in rows]:
        raise RecbalError(f"The rows lack the column {', '.join(missing)}.")
    return _rich_tables.features_of(rows)


def threshold(cost_false_alarm: float, cost_miss: float) -> float:
    """Probability from which acting is cheaper than not acting."""
    return calibrate.threshold_from_costs(cost_false_alarm, cost_miss)


def _made(name: str) -> Path:
    path = folder() / name
    if not path.exists():
        studies.read(STUDY, recompute=True)
    return path
