"""Study of chapter 5: over-samplers on the promotion log, each with its log-odds shift undone.

The natural sample, its negatives capped at random, so that neighbours can be searched. One
network; its passes and step size were chosen for each sampler on weeks 41 to 44. Placements are
categories, coded as one column for each.
"""

import numpy as np
from imblearn import FunctionSampler
from imblearn.over_sampling import (
    ADASYN,
    SMOTE,
    SMOTENC,
    BorderlineSMOTE,
    RandomOverSampler,
)
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder

from recbal_utils import datasets, studies
from recbal_utils.compare import Method, Test, compare
from recbal_utils.models import NetworkClassifier, preprocessing

CAP = 60_000  # negatives
PLACED = ("on_display", "on_mailer", "on_cover")  # told better by the two categories
NUMBERS = [name for name in datasets.FEATURES if name not in PLACED]
CATEGORIES = [list(datasets.DISPLAY), list(datasets.MAILER)]
SIZES = [len(names) for names in CATEGORIES]

# (epochs, step size): best of 2, 5, 10 passes and .001, .004 by ROC-AUC on weeks 41 to 44
SETTINGS = {"nothing": (10, 0.004), "ROS": (2, 0.004)}
SYNTHETIC_SETTINGS = (2, 0.001)


def encoder():
    """Logarithms and scales of the numbers, then a 0/1 column for each placement."""
    one_hot = OneHotEncoder(categories=CATEGORIES, sparse_output=False, dtype=np.float32)
    return make_column_transformer((preprocessing(), NUMBERS), (one_hot, ["display", "mailer"]))


def folded(X):
    """The 0/1 columns as two columns of codes, at the end."""
    n, first = len(NUMBERS), SIZES[0]
    codes = X[:, n : n + first].argmax(1), X[:, n + first :].argmax(1)
    return np.column_stack([X[:, :n], *codes])


def unfolded(X):
    """The codes as 0/1 columns again."""
    n = len(NUMBERS)
    codes = [np.eye(size)[X[:, n + i].astype(int)] for i, size in enumerate(SIZES)]
    return np.hstack([X[:, :n], *codes]).astype(np.float32)


def smote_nc(X, y, random_state):
    """SMOTE-NC on numbers and the two categories."""
    places = [len(NUMBERS), len(NUMBERS) + 1]
    X_new, y_new = SMOTENC(places, random_state=random_state).fit_resample(folded(X), y)
    return unfolded(X_new), y_new


def samplers(seed):
    """Name -> over-sampler, to equal classes."""
    return {
        "nothing": None,
        "ROS": RandomOverSampler(random_state=seed),
        "SMOTE": SMOTE(random_state=seed),
        "Borderline": BorderlineSMOTE(random_state=seed),
        "ADASYN": ADASYN(random_state=seed),
        "SMOTE-NC": FunctionSampler(func=smote_nc, kw_args={"random_state": seed}),
    }


def capped(name, seed, cap=CAP):
    """The cap on negatives, then the over-sampler."""
    under = RandomUnderSampler(sampling_strategy={0: cap}, random_state=seed)
    over = samplers(seed)[name]
    return make_pipeline(under) if over is None else make_pipeline(under, over)


def methods():
    """Name -> Method; "corrected" undoes the cap and the over-sampler together."""

    def method(name):
        epochs, step = SETTINGS.get(name, SYNTHETIC_SETTINGS)
        options = {"epochs": epochs, "learning_rate": step, "batch_size": 512}
        return Method(
            lambda seed: NetworkClassifier(**options, random_state=seed),
            lambda seed: capped(name, seed),
            shift="prior",
        )

    return {name: method(name) for name in samplers(0)}


def data():
    """Return the natural sample as (X, y), and the rows of the test weeks."""
    train, test = datasets.training_table(keep_positives=False), datasets.visit_table()
    encode = encoder().fit(train)
    rows = Test.of_log(test, encode.transform(test))
    return (encode.transform(train), train["conversion"].to_numpy()), rows


def run(seeds=range(5), checkpoint=None, *, only=None, n_replicates=200):
    """Return the runs of `compare`; `only` names the methods wanted."""
    train, test = data()
    chosen = {k: v for k, v in methods().items() if only is None or k in only}
    return compare(
        chosen, train, test, seeds=seeds, n_replicates=n_replicates, checkpoint=checkpoint
    )


if __name__ == "__main__":
    studies.main(run)
