"""Study of chapter 4: the ratio sweep of a logistic regression on the promotion log.

One natural sample, one test at the natural rate. The training sample is used as it is, with class
weights, and with its negatives dropped at random down to three ratios.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from recbal_utils import datasets, models, studies
from recbal_utils.balance import NegativeDownsampler
from recbal_utils.compare import Method, Test, compare
from recbal_utils.evaluate import roc_auc

RATIOS = (100, 10, 1)  # negatives per positive
WEIGHTED = 10


def regression(seed=None, **options):
    """Without a penalty, so that nothing but the rows differs; Newton steps, to the optimum."""
    return LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-6, **options)


def data():
    """The natural sample and the test, by the same logarithms and scales."""
    train, test = datasets.training_table(keep_positives=False), datasets.visit_table()
    scaler = models.preprocessing()
    X = scaler.fit_transform(datasets.matrix(train)).astype(np.float64)
    rows = Test.of_log(test, scaler.transform(datasets.matrix(test)))
    return (X, train["conversion"].to_numpy()), rows


def methods(y):
    """Name -> Method; `y` tells the natural ratio."""
    natural = (y == 0).sum() / y.sum()

    def thinned(ratio):
        return lambda seed: NegativeDownsampler(negatives_per_positive=ratio, random_state=seed)

    def weighted_back(seed):
        return regression(class_weight={0: natural / WEIGHTED, 1: 1})

    def balanced(seed):
        return regression(class_weight={0: 1, 1: natural})

    found = {
        "natural": Method(regression, seeded=False),
        "class weights 1:1": Method(balanced, shift=-np.log(natural), seeded=False),
    }
    for ratio in RATIOS:
        shift = np.log(ratio / natural)
        found[f"down-sampled 1:{ratio}"] = Method(regression, thinned(ratio), shift=shift)
    found[f"down-sampled 1:{WEIGHTED}, weighted"] = Method(weighted_back, thinned(WEIGHTED))
    return found


def run(seeds=range(5), checkpoint=None, *, only=None, n_replicates=200):
    """Return the runs of `compare`; `only` names the methods wanted."""
    train, test = data()
    chosen = {k: v for k, v in methods(train[1]).items() if only is None or k in only}
    return compare(
        chosen, train, test, seeds=seeds, n_replicates=n_replicates, checkpoint=checkpoint
    )


def penalties(inverse=(0.01, 0.1, 1, np.inf), seed=0):
    """ROC-AUC on the weeks for choosing: a row for each ratio, a column for each `C`."""
    train = datasets.training_table(keep_positives=False)
    choose = datasets.visit_table(datasets.CHOOSE_WEEKS, share=datasets.CHOOSE_SHARE)
    scaler, y = models.preprocessing(), train["conversion"].to_numpy()
    X = scaler.fit_transform(datasets.matrix(train)).astype(np.float64)
    X_choose, found = scaler.transform(datasets.matrix(choose)), {}
    for ratio in ((y == 0).sum() // y.sum(), *RATIOS):
        thin = NegativeDownsampler(negatives_per_positive=ratio, random_state=seed)
        rows = thin.fit_resample(X, y)
        fitted = {C: regression().set_params(C=C).fit(*rows) for C in inverse}
        scores = {C: model.decision_function(X_choose) for C, model in fitted.items()}
        found[ratio] = {C: roc_auc(choose["conversion"], score) for C, score in scores.items()}
    return pd.DataFrame(found).T.rename_axis("negatives per positive")


if __name__ == "__main__":
    studies.main(run)
