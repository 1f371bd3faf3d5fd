"""Study of chapter 8: losses for rare conversions, each with its exact repair.

One network on the natural sample, with settings chosen on weeks 41 to 44. Every network but
the first starts at the best constant prediction of its own loss, so that none wins by its start.
"""

import keras
import numpy as np
from scipy.special import logit

from recbal_utils import datasets, losses, studies
from recbal_utils.calibrate import shift_log_odds
from recbal_utils.compare import PRICE, Method, Test, compare
from recbal_utils.models import NetworkClassifier, preprocessing

GAMMA = 2.0
BETA = 0.9999


def cross_entropy(y, z):
    return keras.losses.binary_crossentropy(y, z, from_logits=True)


def focal(y, z):
    return keras.losses.binary_focal_crossentropy(y, z, from_logits=True, gamma=GAMMA)


class Started:
    """A network whose log-odds start near `start` instead of 0, and what it predicts."""

    def __init__(self, loss, start, seed, class_weight=None):
        self.start = start
        self.network = NetworkClassifier(
            loss=lambda y, z: loss(y, z + start),
            logits=True,
            class_weight=class_weight,
            random_state=seed,
        )

    def fit(self, X, y):
        self.network.fit(X, y)
        return self

    def predict_proba(self, X):
        p = shift_log_odds(self.network.predict_proba(X)[:, 1], self.start)
        return np.column_stack([1 - p, p])


class Focal:
    """Focal loss; one training serves the raw and the corrected predictions of a seed."""

    trained: dict = {}  # noqa: RUF012 -- shared on purpose

    def __init__(self, start, seed, corrected):
        self.start, self.seed, self.corrected = start, seed, corrected

    def fit(self, X, y):
        if self.seed not in self.trained:
            self.trained[self.seed] = Started(focal, self.start, self.seed).fit(X, y)
        return self

    def predict_proba(self, X):
        p = self.trained[self.seed].predict_proba(X)[:, 1]
        p = losses.focal_correction(p, GAMMA) if self.corrected else p
        return np.column_stack([1 - p, p])


def methods(y):
    """Name -> Method; a "corrected" entry undoes exactly what the loss did to probabilities."""
    counts = np.bincount(y)
    rate = counts[1] / len(y)
    weights = losses.class_balanced_weights(counts, BETA)
    gain = np.log(weights[1] / weights[0])
    focal_start = logit(losses.focal_distortion(rate, GAMMA))
    adjusted = losses.LogitAdjustedBinaryCrossentropy(rate)

    def class_balanced(seed):
        return Started(cross_entropy, logit(rate) + gain, seed, dict(enumerate(weights)))

    return {
        "cross-entropy": Method(lambda seed: NetworkClassifier(random_state=seed)),
        "class weights": Method(
            lambda seed: NetworkClassifier(class_weight="balanced", random_state=seed),
            shift=logit(rate),
        ),
        "class-balanced": Method(class_balanced, shift=-gain),
        "focal": Method(lambda seed: Focal(focal_start, seed, corrected=False)),
        "focal, corrected": Method(lambda seed: Focal(focal_start, seed, corrected=True)),
        "logit-adjusted": Method(
            lambda seed: NetworkClassifier(loss=adjusted, logits=True, random_state=seed),
            shift=logit(rate),
        ),
    }


def data():
    """Return the natural sample as (X, y), and the rows of the test weeks."""
    train, test = datasets.training_table(keep_positives=False), datasets.visit_table()
    scale = preprocessing().fit(datasets.matrix(train))
    rows = Test.of_log(test, scale.transform(datasets.matrix(test)))
    return (scale.transform(datasets.matrix(train)), train["conversion"].to_numpy()), rows


def run(seeds=range(5), checkpoint=None, n_replicates=200):
    """Return the runs of `compare` on the test weeks."""
    train, rows = data()
    runs = compare(
        methods(train[1]),
        train,
        rows,
        seeds=seeds,
        n_replicates=n_replicates,
        checkpoint=checkpoint,
    )
    runs.loc["focal, corrected", list(PRICE)] = runs.loc["focal", list(PRICE)].to_numpy()
    return runs


if __name__ == "__main__":
    studies.main(run)
