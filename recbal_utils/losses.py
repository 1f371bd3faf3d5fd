"""Losses for rare classes that Keras lacks, and what such losses do to probabilities.

Keras has focal loss (`keras.losses.BinaryFocalCrossentropy`, `CategoricalFocalCrossentropy`) and
generalised cross-entropy (`CategoricalGeneralizedCrossEntropy`); here are the map from focal
predictions to probabilities, weights by effective number, and logit-adjusted cross-entropy.
Weights, priors and maps are plain NumPy; Keras is imported with the first loss that is asked for.
"""

from functools import cache

import numpy as np
from scipy.special import expit, logit

from recbal_utils.calibrate import _number, _open_share, _probabilities
from recbal_utils.errors import RecbalError

KERAS_LOSSES = ("LogitAdjustedBinaryCrossentropy", "LogitAdjustedCrossentropy")
BISECTIONS = 70
DEEPEST = 750.0  # beyond the log-odds of every float64


# --- focal loss -----------------------------------------------------------------------------


def focal_distortion(p, gamma=2.0, alpha=None):
    """Return what focal loss teaches a model to predict where the true probability is p.

    Parameters
    ----------
    p : array-like of shape (n,), or float
        True probabilities in [0, 1].
    gamma : float, default 2
        Focusing exponent of the loss, at least 0; 0 is cross-entropy.
    alpha : float in (0, 1), optional
        Weight of positives, negatives having 1 - alpha; None for no weights. Keras uses it only
        with `apply_class_balancing=True`.

    Returns
    -------
    ndarray of shape (n,), or float
        The q that minimises p L(1, q) + (1 - p) L(0, q), in float64. Rare events come out near
        the (1 + gamma)-th root of p / (1 + gamma).

    Raises
    ------
    RecbalError
        If p is not in [0, 1], gamma is negative or infinite, or alpha is outside (0, 1).

    See Also
    --------
    focal_correction : the inverse, by a closed form.

    Examples
    --------
    >>> round(float(focal_distortion(0.01)), 3)
    0.154
    """
    gamma, shift = _focal_settings(gamma, alpha)
    z = np.clip(logit(_probabilities(p)) + shift, -DEEPEST, DEEPEST)
    low, high = np.minimum(z, 0), np.maximum(z, 0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = _unfocused(middle, gamma) < z
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _ends_kept((low + high) / 2, p)


def focal_correction(q, gamma=2.0, alpha=None):
    """Return the probability that a focal-loss prediction q stands for.

    With phi(q) = (1 - q)^gamma / q - gamma (1 - q)^(gamma - 1) ln q, minus the slope of the loss
    of a positive, the best q balances p alpha phi(q) = (1 - p) (1 - alpha) phi(1 - q), hence

        logit p = ln phi(1 - q) - ln phi(q) - logit alpha.

    Parameters
    ----------
    q : array-like of shape (n,), or float
        Predictions in [0, 1] of a model trained with focal loss.
    gamma, alpha
        As given to the loss; see `focal_distortion`.

    Returns
    -------
    ndarray of shape (n,), or float
        Probabilities in float64, in the order of q.

    Raises
    ------
    RecbalError
        As for `focal_distortion`.

    References
    ----------
    N. Charoenphakdee et al., "On Focal Loss for Class-Posterior Probability Estimation: A
    Theoretical Perspective", CVPR 2021.
    """
    gamma, shift = _focal_settings(gamma, alpha)
    z = np.clip(logit(_probabilities(q)), -DEEPEST, DEEPEST)
    return _ends_kept(_unfocused(z, gamma) - shift, q)


# --- class-balanced weights -----------------------------------------------------------------


def effective_number(counts, beta):
    """Return the effective number of rows of each class, (1 - beta^n) / (1 - beta).

    Parameters
    ----------
    counts : array-like of shape (n_classes,)
        Rows n of each class, at least 1.
    beta : float
        In [0, 1]. 0 counts every class as one row, 1 (the limit) counts all rows; in between at
        most 1 / (1 - beta) rows count.

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    RecbalError
        If a class has no row, or beta is outside [0, 1].

    References
    ----------
    Y. Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    counts, beta = _counts(counts), _number(beta, "beta")
    if not 0 <= beta <= 1:
        raise RecbalError(f"beta must lie in [0, 1]; it is {beta:g}. Try 0.99 to 0.9999.")
    if beta == 1:
        return counts
    if beta == 0:
        return np.ones_like(counts)
    return np.expm1(counts * np.log(beta)) / (beta - 1)


def class_balanced_weights(counts, beta=0.9999):
    """Return class weights that fall with the effective number of rows.

    Parameters
    ----------
    counts, beta
        As for `effective_number`: 0 weighs all classes alike, 1 by inverse frequency.

    Returns
    -------
    ndarray of shape (n_classes,)
        Proportional to 1 / effective number, summing to the number of classes as in the paper.
        For Keras: `class_weight=dict(enumerate(weights))`. In the binary case they shift the
        log-odds by ln(w[1] / w[0]).

    Raises, references
    ------------------
    As for `effective_number`.

    Examples
    --------
    >>> weights = class_balanced_weights([5000, 50], beta=0.999)
    >>> round(float(weights[1] / weights[0]), 1)
    20.4
    """
    weights = 1 / effective_number(counts, beta)
    return weights * len(weights) / weights.sum()


# --- losses of Keras ------------------------------------------------------------------------


def balanced_softmax(counts):
    """Return the balanced softmax loss: logit-adjusted cross-entropy with tau = 1.

    Parameters
    ----------
    counts : array-like of shape (n_classes,)
        Rows of each class, at least 1.

    Returns
    -------
    LogitAdjustedCrossentropy

    References
    ----------
    J. Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """
    return _keras_losses()["LogitAdjustedCrossentropy"](counts, tau=1.0, name="balanced_softmax")


def __getattr__(name):
    if name in KERAS_LOSSES:
        return _keras_losses()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *KERAS_LOSSES])


@cache
def _keras_losses():
    """Define and register the losses; not at import, which would cost that of TensorFlow."""
    import keras

    @keras.saving.register_keras_serializable(package="recbal_utils")
    class LogitAdjustedBinaryCrossentropy(keras.losses.Loss):
        """Cross-entropy of log-odds to which tau logit(prior) is added while training only.

        The model's own output then leaves the prior out: its sign is the decision with the least
        balanced error, and adding tau logit(prior) again gives natural log-odds.

        Parameters
        ----------
        prior : float
            Share of positives in the training rows, in (0, 1).
        tau : float, default 1
            At least 0; 0 is plain cross-entropy.

        References
        ----------
        A. K. Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021.
        """

        def __init__(self, prior, tau=1.0, name="logit_adjusted_binary_crossentropy", **options):
            super().__init__(name=name, **options)
            self.prior = _open_share(prior, "prior")
            self.tau = _at_least_zero(tau, "tau")

        def call(self, y_true, y_pred):
            adjusted = y_pred + self.tau * float(logit(self.prior))
            return keras.losses.binary_crossentropy(y_true, adjusted, from_logits=True)

        def get_config(self):
            return super().get_config() | {"prior": self.prior, "tau": self.tau}

    @keras.saving.register_keras_serializable(package="recbal_utils")
    class LogitAdjustedCrossentropy(keras.losses.Loss):
        """Softmax cross-entropy of logits to which tau ln(prior) is added while training only.

        Labels are class numbers, of shape (n,) or (n, 1); outputs are logits (n, n_classes).

        Parameters
        ----------
        priors : array-like of shape (n_classes,)
            Shares or counts of the classes in the training rows, positive.
        tau : float, default 1
            At least 0; 0 is plain cross-entropy, 1 is balanced softmax.

        References
        ----------
        A. K. Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021.
        """

        def __init__(self, priors, tau=1.0, name="logit_adjusted_crossentropy", **options):
            super().__init__(name=name, **options)
            self.priors = _priors(priors).tolist()
            self.tau = _at_least_zero(tau, "tau")

        def call(self, y_true, y_pred):
            if y_pred.shape[-1] != len(self.priors):
                raise RecbalError(
                    f"The model has {y_pred.shape[-1]} outputs and the loss {len(self.priors)} "
                    "priors: give one for each class."
                )
            shares = np.divide(self.priors, np.sum(self.priors))
            shift = keras.ops.convert_to_tensor(self.tau * np.log(shares), dtype=y_pred.dtype)
            return keras.losses.sparse_categorical_crossentropy(
                y_true, y_pred + shift, from_logits=True
            )

        def get_config(self):
            return super().get_config() | {"priors": self.priors, "tau": self.tau}

    found = LogitAdjustedBinaryCrossentropy, LogitAdjustedCrossentropy
    for loss in found:
        loss.__qualname__ = loss.__name__
    return {loss.__name__: loss for loss in found}


# --- how it is put together -----------------------------------------------------------------


def _unfocused(z, gamma):
    """Log-odds of the probability that a focal prediction with log-odds z stands for."""
    return _log_phi(-z, gamma) - _log_phi(z, gamma)


def _log_phi(z, gamma):
    """ln phi(q) for q = expit(z), in logarithms, so that neither end loses digits."""
    minus_ln_q, minus_ln_rest = np.logaddexp(0, -z), np.logaddexp(0, z)
    ln_gamma = np.log(gamma) if gamma > 0 else -np.inf
    second = ln_gamma + _log_softplus(-z) + minus_ln_rest
    return np.logaddexp(minus_ln_q, second) - gamma * minus_ln_rest


def _log_softplus(x):
    """ln ln(1 + e^x); for x below -37 it is x to the last digit."""
    return np.where(x < -37, x, np.log(np.logaddexp(0, np.maximum(x, -37))))


def _ends_kept(z, given):
    """Probabilities of log-odds z, except where the given ones are exactly 0 or 1."""
    given = np.asarray(given, dtype=np.float64)
    return np.where((given == 0) | (given == 1), given, expit(z))[()]


def _focal_settings(gamma, alpha):
    gamma = _at_least_zero(gamma, "gamma")
    return gamma, 0.0 if alpha is None else float(logit(_open_share(alpha, "alpha")))


def _at_least_zero(value, name):
    number = _number(value, name)
    if not 0 <= number < np.inf:
        raise RecbalError(f"{name} must be a finite number of at least 0; it is {value!r}.")
    return number


def _counts(counts):
    array = np.atleast_1d(np.asarray(counts))
    numeric = array.ndim == 1 and array.dtype.kind in "iuf"
    if not numeric or not (np.isfinite(array) & (array >= 1)).all():
        raise RecbalError(
            f"counts must hold the rows of each class, at least 1; they are {counts!r}. A class "
            "without a row has no weight: leave it out."
        )
    return array.astype(np.float64)


def _priors(priors):
    array = np.asarray(priors)
    numeric = array.ndim == 1 and array.dtype.kind in "iuf" and array.size > 1
    if not numeric or not (np.isfinite(array) & (array > 0)).all():
        raise RecbalError(
            f"priors must hold a positive share or count for each of two or more classes; they "
            f"are {priors!r}."
        )
    return array
