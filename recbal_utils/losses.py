"""Losses for rare classes that Keras lacks, and what such losses do to probabilities.

Keras has focal loss (`keras.losses.BinaryFocalCrossentropy`, `CategoricalFocalCrossentropy`) and
generalised cross-entropy (`CategoricalGeneralizedCrossEntropy`); here are the map from focal
predictions to probabilities, weights by effective number, logit-adjusted cross-entropy, and softmax
cross-entropy over sampled or in-batch negatives.
Weights, priors and maps are plain NumPy; Keras is imported with the first loss that is asked for.
"""

from functools import cache

import numpy as np
from scipy.special import expit, logit

from recbal_utils import _inputs
from recbal_utils.calibrate import _probabilities
from recbal_utils.errors import RecbalError

KERAS_LOSSES = ("LogitAdjustedBinaryCrossentropy", "LogitAdjustedCrossentropy")
BISECTIONS = 70
DEEPEST = 750.0  # beyond the log-odds of every float64
REMOVED = -1e30  # not -inf, whose gradient is no number where every negative is removed


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
    counts, beta = _counts(counts), _inputs.number(beta, "beta")
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
            self.prior = _inputs.open_share(prior, "prior")
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


# --- softmax over sampled negatives ---------------------------------------------------------


def sampled_softmax(
    positive_logits,
    negative_logits,
    positive_log_q=None,
    negative_log_q=None,
    hits=None,
    mask=None,
    *,
    n_draws=None,
):
    """Return softmax cross-entropy with m drawn negatives in place of the whole catalogue.

    With negatives drawn with probabilities Q, sum_k exp(s_k - ln(m Q_k)) has the expectation
    sum_j exp(s_j), the denominator of the full softmax. Three of its uses:

    - both corrected, hits kept (`positive_log_q` given, `hits` None): over all choices its
      minimum is that of the full softmax for every m, since Bayes' rule gives the odds p / Q of
      which candidate was chosen;
    - positive left alone, hits removed (`positive_log_q` None, `hits` given): the denominator is
      unbiased for every m, its logarithm, and so the minimum, only as m grows;
    - both corrected, hits removed: the positive is counted too little where m Q exceeds 1, and
      more negatives do not mend it.

    Without `negative_log_q` the model learns ln p(item | user) - ln Q(item).

    Parameters
    ----------
    positive_logits : tensor of shape (B,)
        Scores s of the items that were chosen.
    negative_logits : tensor of shape (B, m), or (m,) if the rows share scores
        Scores of the drawn items, repeats included.
    positive_log_q : tensor of shape (B,), optional
        ln Q of the chosen items; None leaves their scores alone.
    negative_log_q : tensor of shape (m,) or (B, m), optional
        ln Q of the drawn items, Q being the probability of one draw (ln m is added here), as
        small as floats go: nothing is clipped.
    hits : bool tensor of shape (B, m), optional
        True where a drawn item is the row's chosen one, to remove it; None keeps all.
    mask : bool or 0/1 tensor of shape (B,), optional
        False for padding: its loss is 0, whatever the row holds.
    n_draws : scalar, optional
        Draws m that were made, if not all columns are draws.

    Returns
    -------
    tensor of shape (B,)
        Loss of each row, in the dtype of the logits, at least float32. Sum it and divide by the
        number of rows that are not padding.

    Raises
    ------
    RecbalError
        If shapes disagree, ln Q is given for the positives only, or an array of ln Q holds a
        value above 0 or that is not finite.

    References
    ----------
    Y. Bengio and J.-S. Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural
    Probabilistic Language Model", IEEE Transactions on Neural Networks 19(4), 2008.
    Z. Ma and M. Collins, "Noise Contrastive Estimation and Negative Sampling for Conditional
    Models: Consistency and Statistical Efficiency", EMNLP 2018.
    """
    from keras import ops

    positive, negative = _sampled_logits(positive_logits, negative_logits)
    if negative_log_q is not None:
        draws = ops.shape(negative)[1] if n_draws is None else n_draws
        ln_m = ops.log(ops.cast(draws, negative.dtype))
        negative = negative - ln_m - _log_q(negative_log_q, "negative_log_q", negative)
        if positive_log_q is not None:
            positive = positive - ln_m - _log_q(positive_log_q, "positive_log_q", positive)
    elif positive_log_q is not None:
        raise RecbalError(
            "positive_log_q is given and negative_log_q is not: correct the negatives too, or "
            "neither."
        )
    if hits is not None:
        hits = ops.cast(hits, "bool")
        _same_shape(hits, negative, "hits", "negative_logits")
        negative = ops.where(hits, REMOVED, negative)
    if mask is None:
        return _one_against(positive, negative)
    mask = ops.cast(mask, "bool")
    _same_shape(mask, positive, "mask", "positive_logits")
    zero = ops.zeros((), dtype=positive.dtype)
    kept = ops.where(mask, positive, zero), ops.where(mask[:, None], negative, zero)
    return ops.where(mask, _one_against(*kept), zero)


def in_batch_softmax(
    user, item, item_ids, log_q=None, hits="keep", correct_positive=True, mask=None
):
    """Return softmax cross-entropy whose negatives are the items of the other rows of the batch.

    Items come into a batch as often as they are chosen, so Q is their popularity.

    Parameters
    ----------
    user, item : tensors of shape (B, d)
        Vectors of users and of the items they chose; a score is their inner product.
    item_ids : integer tensor of shape (B,)
        Which item each row holds, to find accidental hits.
    log_q : tensor of shape (B,), optional
        ln Q of each row's item, Q summing to 1 over the catalogue; None for no correction.
    hits : {"keep", "remove"}, default "keep"
        What to do with other rows that hold a row's own item.
    correct_positive : bool, default True
        Whether `log_q` is applied to the positive too. If not, remove hits: kept, they count the
        positive twice. See `sampled_softmax`.
    mask : bool or 0/1 tensor of shape (B,), optional
        False for padding, which is nobody's negative and has a loss of 0.

    Returns
    -------
    tensor of shape (B,)

    Raises
    ------
    RecbalError
        As for `sampled_softmax`, or if `hits` is another word.
    """
    from keras import ops

    if hits not in ("keep", "remove"):
        raise RecbalError(f"hits must be 'keep' or 'remove'; it is {hits!r}.")
    user, item = _vectors(user, item)
    real = ops.ones(ops.shape(user)[:1], "bool") if mask is None else ops.cast(mask, "bool")
    _same_length(real, user, "mask")
    item_ids = ops.convert_to_tensor(item_ids)
    _same_length(item_ids, user, "item_ids")
    zero = ops.zeros((), dtype=user.dtype)
    user, item = ops.where(real[:, None], user, zero), ops.where(real[:, None], item, zero)
    itself = ops.eye(ops.shape(user)[0], dtype="bool")
    removed = ops.logical_or(itself, ops.logical_not(real)[None, :])
    if hits == "remove":
        removed = ops.logical_or(removed, item_ids[:, None] == item_ids[None, :])
    draws = ops.maximum(ops.sum(ops.cast(real, user.dtype)) - 1, 1)
    return sampled_softmax(
        ops.sum(user * item, axis=1),
        ops.matmul(user, ops.transpose(item)),
        log_q if correct_positive else None,
        log_q,
        hits=removed,
        mask=mask,
        n_draws=None if log_q is None else draws,
    )


# --- how it is put together -----------------------------------------------------------------


def _one_against(positive, negative):
    """ln(1 + sum_k exp(negative_k - positive)), which keeps the digits of small losses."""
    from keras import ops

    return ops.softplus(ops.logsumexp(negative - positive[:, None], axis=1))


def _sampled_logits(positive, negative):
    from keras import ops

    positive, negative = _at_least_float32(positive), _at_least_float32(negative)
    if len(negative.shape) == 1:
        negative = negative[None, :]
    if len(positive.shape) != 1 or len(negative.shape) != 2:
        raise RecbalError(
            "positive_logits must have the shape (B,) and negative_logits (B, m) or (m,); they "
            f"have {tuple(positive.shape)} and {tuple(negative.shape)}."
        )
    if negative.shape[0] == 1:
        negative = ops.repeat(negative, ops.shape(positive)[0], axis=0)
    _same_length(negative, positive, "negative_logits", "positive_logits")
    return positive, negative


def _vectors(user, item):
    user, item = _at_least_float32(user), _at_least_float32(item)
    _same_shape(user, item, "user", "item")
    if len(user.shape) != 2:
        raise RecbalError(f"user and item must have the shape (B, d); it is {tuple(user.shape)}.")
    return user, item


def _at_least_float32(logits):
    from keras import ops

    tensor = ops.convert_to_tensor(logits)
    return tensor if "64" in str(tensor.dtype) else ops.cast(tensor, "float32")


def _log_q(log_q, name, like):
    from keras import ops

    if isinstance(log_q, np.ndarray | list | tuple | float | int):
        given = np.asarray(log_q, dtype=np.float64)
        if not (np.isfinite(given) & (given <= 0)).all():
            raise RecbalError(
                f"{name} must hold finite logarithms of probabilities, at most 0; its largest is "
                f"{given.max():g} and its least {given.min():g}. Give ln Q, not Q or counts."
            )
    tensor = ops.cast(log_q, like.dtype)
    if len(tensor.shape) == len(like.shape) or len(like.shape) == 1:
        _same_shape(tensor, like, name, "the logits")
    elif tensor.shape[-1] is not None and tensor.shape[-1] != like.shape[-1]:
        raise RecbalError(
            f"{name} has {tensor.shape[-1]} values and there are {like.shape[-1]} negatives."
        )
    return tensor


def _same_shape(tensor, other, name, other_name):
    shapes = tuple(tensor.shape), tuple(other.shape)
    known = all(a is None or b is None or a == b for a, b in zip(*shapes, strict=False))
    if len(shapes[0]) != len(shapes[1]) or not known:
        raise RecbalError(
            f"{name} has the shape {shapes[0]} and {other_name} {shapes[1]}: make them agree."
        )


def _same_length(tensor, other, name, other_name="user"):
    lengths = tensor.shape[0], other.shape[0]
    if None not in lengths and lengths[0] != lengths[1]:
        raise RecbalError(
            f"{name} has {lengths[0]} rows and {other_name} {lengths[1]}: make them agree."
        )


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
    return gamma, 0.0 if alpha is None else float(logit(_inputs.open_share(alpha, "alpha")))


def _at_least_zero(value, name):
    number = _inputs.number(value, name)
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
