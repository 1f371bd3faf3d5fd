"""Training and serving that change on their way: stages, a ratio chosen online, a tracked rate.

`StagedNetwork` trains in stages that differ in weights, rows or trainable layers. `online_ratio`
lets a bandit choose the negatives per positive round by round. `track` follows a moving rate.
All of them change the share of positives that a network sees, so each says what is to be undone.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError

SCORING_ROWS = 65_536


@dataclass(frozen=True)
class Stage:
    """One part of a training.

    Parameters
    ----------
    epochs : int
        Passes over the rows of the stage, at least 1.
    positive_weight : float or "balanced"
        Weight of a positive; a negative weighs 1. "balanced": negatives per positive, so that
        both classes weigh the same.
    hardest : float in (0, 1]
        Share of the negatives that stay: those to which the network, as it is when the stage
        begins, gives the highest scores.
    head_only : bool
        Freeze the hidden layers, and start the output layer anew.
    """

    epochs: int = 1
    positive_weight: float | str = 1.0
    hardest: float = 1.0
    head_only: bool = False


class Trainer:
    """A network that is fed batches of row numbers, so that what it sees may change at any time.

    Parameters
    ----------
    X : array-like of shape (n, d)
    y : array-like of shape (n,)
        0 or 1.
    hidden : tuple of int
    rate : float in (0, 1)
        What the network predicts on average before its first step.
    seed : int
        Sets Keras's global seed.
    """

    def __init__(self, X, y, *, hidden=(64,), rate=0.5, seed=0):
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(int(seed))
        inputs = x = keras.Input((X.shape[1],))
        for units in hidden:
            x = keras.layers.Dense(units, activation="relu")(x)
        start = keras.initializers.Constant(float(np.log(rate) - np.log1p(-rate)))
        self.head = keras.layers.Dense(1, bias_initializer=start)
        self.model = keras.Model(inputs, self.head(x))
        self._X = tf.constant(np.asarray(X, dtype=np.float32))
        self._y = tf.constant(np.asarray(y, dtype=np.float32)[:, None])
        self.train_all()

    def train_all(self):
        """Let later steps change every layer."""
        self._trains(self.model.trainable_variables)

    def train_head(self):
        """Start the output layer anew; later steps change it alone."""
        for variable, initializer in (
            (self.head.kernel, self.head.kernel_initializer),
            (self.head.bias, self.head.bias_initializer),
        ):
            variable.assign(initializer(variable.shape))
        self._trains([self.head.kernel, self.head.bias])

    def run(self, batches, rates, *, positive_weight=1.0, offset=0.0):
        """Take a step of Adam for each row of `batches`.

        Parameters
        ----------
        batches : int array of shape (n_batches, batch_size)
            Row numbers.
        rates : array-like of shape (n_batches,)
            Step sizes.
        positive_weight : float
        offset : float
            Added to the log-odds inside the loss alone: ln(1 / β) when negatives are kept at rate
            β makes the network's own log-odds those of the natural rate.
        """
        self._steps(
            self._X,
            self._y,
            np.asarray(batches, np.int32),
            np.asarray(rates, np.float32),
            np.float32(positive_weight),
            np.float32(offset),
        )

    def log_odds(self, X):
        """Return the network's output for X of shape (m, d), as float64 of shape (m,)."""
        X = np.asarray(X, dtype=np.float32)
        parts = [
            np.asarray(self.model(X[i : i + SCORING_ROWS])) for i in range(0, len(X), SCORING_ROWS)
        ]
        return np.concatenate(parts)[:, 0].astype(np.float64)

    def _trains(self, variables):
        import keras
        import tensorflow as tf

        optimizer = keras.optimizers.Adam(0.001)
        optimizer.build(variables)

        @tf.function(  # rows are arguments: what a graph captures outlives the network
            input_signature=[
                tf.TensorSpec(self._X.shape, tf.float32),
                tf.TensorSpec(self._y.shape, tf.float32),
                tf.TensorSpec((None, None), tf.int32),
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((), tf.float32),
                tf.TensorSpec((), tf.float32),
            ]
        )
        def steps(X, y, batches, rates, positive_weight, offset):
            for i in tf.range(tf.shape(batches)[0]):
                labels = tf.gather(y, batches[i])
                with tf.GradientTape() as tape:
                    z = self.model(tf.gather(X, batches[i])) + offset
                    loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, z)
                    loss = tf.reduce_mean(loss * (1 + (positive_weight - 1) * labels))
                optimizer.learning_rate.assign(rates[i])
                optimizer.apply(tape.gradient(loss, variables), variables)

        self._steps = steps


class StagedNetwork(ClassifierMixin, BaseEstimator):
    """A feed-forward network for two classes whose training goes through stages.

    Parameters
    ----------
    stages : sequence of Stage
        One stage without weights is plain training. A second one with weights is deferred
        re-weighting; with weights and `head_only`, decoupled training; with `hardest` below 1,
        hard-negative mining.
    hidden : tuple of int, default (64,)
    batch_size : int, default 4096
    learning_rate : float, default .012
        At the start of each stage; it falls to 0 along a cosine.
    random_state : int, default 0

    Attributes
    ----------
    log_odds_shift_ : float
        What the last stage's weights add to the log-odds if it has converged, ln(weight); NaN
        where negatives were chosen by their score, since no single number describes that.
    trainer_ : Trainer
    n_steps_ : int
        Steps of the optimiser, over all stages.
    classes_ : ndarray of shape (2,)

    References
    ----------
    K. Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019 (deferred re-weighting). B. Kang et al., "Decoupling Representation and Classifier
    for Long-Tailed Recognition", ICLR 2020.
    """

    def __init__(
        self, stages=(Stage(),), hidden=(64,), batch_size=4096, learning_rate=0.012, random_state=0
    ):
        self.stages = stages
        self.hidden = hidden
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X, y):
        """Train on X of shape (n, d) and y of shape (n,), both classes in it.

        Raises
        ------
        RecbalError
            If there is no stage, one is out of range, y has not two classes, or log-odds stop
            being finite.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise RecbalError(f"y holds {len(self.classes_)} class(es); this network needs two.")
        stages = _checked_stages(self.stages)
        rng = np.random.default_rng(self.random_state)
        self.trainer_ = Trainer(
            X, codes, hidden=self.hidden, rate=codes.mean(), seed=self.random_state
        )
        self.n_steps_ = 0
        for stage in stages:
            self._go(stage, X, codes, rng)
        self.log_odds_shift_ = float(np.log(self._weight)) if stage.hardest == 1 else np.nan
        if not np.isfinite(self.trainer_.log_odds(X[:1000])).all():
            raise RecbalError("The network's log-odds are not finite: lower learning_rate.")
        return self

    def decision_function(self, X):
        """Return log-odds of the second class as the last stage left them, shape (n,)."""
        check_is_fitted(self)
        return self.trainer_.log_odds(validate_data(self, X, dtype=np.float32, reset=False))

    def predict_proba(self, X):
        """Return probabilities of shape (n, 2), with nothing undone."""
        p = expit(self.decision_function(X))
        return np.column_stack([1 - p, p])

    def predict(self, X):
        """Return the more probable class of each row, shape (n,)."""
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    def _go(self, stage, X, codes, rng):
        rows = _stage_rows(stage, codes, lambda: self.trainer_.log_odds(X))
        positives = codes[rows].sum()
        balanced = (len(rows) - positives) / positives
        self._weight = balanced if stage.positive_weight == "balanced" else stage.positive_weight
        if stage.head_only:
            self.trainer_.train_head()
        else:
            self.trainer_.train_all()
        per_epoch = max(1, len(rows) // self.batch_size)
        size = min(self.batch_size, len(rows))
        rates = cosine(self.learning_rate, stage.epochs * per_epoch)
        for epoch in range(stage.epochs):
            batches = rng.permutation(rows)[: per_epoch * size].reshape(per_epoch, size)
            part = rates[epoch * per_epoch : (epoch + 1) * per_epoch]
            self.trainer_.run(batches, part, positive_weight=self._weight)
        self.n_steps_ += len(rates)


def cosine(learning_rate, n_steps):
    """Return step sizes that fall from `learning_rate` towards 0, shape (n_steps,)."""
    return learning_rate * (1 + np.cos(np.pi * np.arange(n_steps) / n_steps)) / 2


def hardest(score, y, share):
    """Return which rows stay when only the highest-scored share of the negatives is kept.

    Parameters
    ----------
    score : array-like of shape (n,)
    y : array-like of shape (n,)
        0 or 1; positives all stay.
    share : float in (0, 1]

    Returns
    -------
    ndarray of int
        Row numbers in order.

    Raises
    ------
    RecbalError
        If the share is out of range, or there is no negative.
    """
    if not 0 < share <= 1:
        raise RecbalError(f"share is {share!r}; it must lie above 0 and be at most 1.")
    _inputs.check_shapes(score=score, y=y)
    score, y = _inputs.numbers(score, "score"), _inputs.labels(y)
    negatives = np.flatnonzero(y == 0)
    if not len(negatives):
        raise RecbalError("There is no negative to choose from: y holds positives only.")
    kept = max(1, round(share * len(negatives)))
    top = negatives[np.argsort(-score[negatives], kind="stable")[:kept]]
    return np.sort(np.concatenate([np.flatnonzero(y == 1), top]))


# --- a ratio chosen online ------------------------------------------------------------------


def online_ratio(
    X,
    y,
    gain_on,
    ratios,
    chooser,
    *,
    rounds=60,
    steps=20,
    batch_size=4096,
    learning_rate=0.012,
    keep_rate=1.0,
    seed=0,
):
    """Train one network whose negatives per positive are chosen anew in every round.

    Parameters
    ----------
    X, y : array-like of shape (n, d) and (n,)
        Training rows, among them a share `keep_rate` of the negatives there are.
    gain_on : callable (log_odds) -> float
        Called with a function X -> natural log-odds before the first round and after each;
        returns what should rise, such as minus the log loss on validation rows.
    ratios : sequence of float
        The arms: negatives per positive of a batch.
    chooser : object with `choose() -> int` and `update(arm, reward)`
        Its reward is the rise in a round; see `explore.DiscountedThompson`.
    rounds, steps : int
        Rounds, and batches in each. The step size falls along a cosine over all of them.
    batch_size : int
    learning_rate : float
    keep_rate : float in (0, 1]
    seed : int

    Returns
    -------
    Trainer, list of int
        The network, whose log-odds are those of the natural rate, and the arm of each round.

    Raises
    ------
    RecbalError
        If y has one class only, or a ratio is not above 0.

    Notes
    -----
    A batch of r negatives per positive has the odds of a purchase raised by a known factor. Its
    logarithm is added inside the loss, so that the network itself stays at the natural rate and
    need not follow the ratio up and down.
    """
    y = np.asarray(y)
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    if not len(positives) or not len(negatives):
        raise RecbalError("y holds one class only; a ratio needs positives and negatives.")
    if not all(np.isfinite(r) and r > 0 for r in ratios):
        raise RecbalError(f"ratios are {ratios!r}; give numbers above 0, negatives per positive.")
    natural = len(negatives) / len(positives) / keep_rate
    trainer = Trainer(X, y, rate=1 / (1 + natural), seed=seed)
    rng = np.random.default_rng(seed)
    rates = cosine(learning_rate, rounds * steps).reshape(rounds, steps)
    before, arms = gain_on(trainer.log_odds), []
    for part in rates:
        arm = chooser.choose()
        n_positive = max(1, round(batch_size / (1 + ratios[arm])))
        batches = np.hstack(
            [
                rng.choice(positives, (steps, n_positive)),
                rng.choice(negatives, (steps, batch_size - n_positive)),
            ]
        )
        odds = n_positive / (batch_size - n_positive)
        trainer.run(batches, part, offset=np.log(odds * natural))
        after = gain_on(trainer.log_odds)
        chooser.update(arm, after - before)
        before = after
        arms.append(arm)
    return trainer, arms


# --- a moving rate --------------------------------------------------------------------------


def track(intercept, variance, drift):
    """Return the shift of the log-odds to serve in each period, from labels of earlier ones.

    Parameters
    ----------
    intercept : array-like of shape (n,)
        The shift that each period's labels ask for, in nats; `calibrate.calibration_intercept`.
    variance : array-like of shape (n,)
        Of each, above 0: for independent labels 1 / sum of p (1 - p).
    drift : float
        Standard deviation by which the true shift moves from one period to the next, at least 0:
        0 averages all periods so far, infinity believes the last one alone.

    Returns
    -------
    ndarray of shape (n + 1,)
        Entry t uses periods before t; the first is 0, as is the shift before any label.

    Raises
    ------
    RecbalError
        If lengths differ, a variance is not above 0, or drift is negative.

    References
    ----------
    The Kalman filter of a local level: J. Durbin and S. J. Koopman, *Time Series Analysis by
    State Space Methods*, Oxford 2012.
    """
    _inputs.check_shapes(intercept=intercept, variance=variance)
    intercept = _inputs.numbers(intercept, "intercept")
    variance = _inputs.numbers(variance, "variance")
    if (variance <= 0).any() or not drift >= 0:
        raise RecbalError("variance must be above 0 and drift at least 0; check the labels.")
    served, level, spread = [0.0], 0.0, np.inf
    for seen, noise in zip(intercept, variance, strict=True):
        gain = 1.0 if np.isinf(spread) else spread / (spread + noise)
        level += gain * (seen - level)
        spread = gain * noise + drift**2
        served.append(level)
    return np.array(served)


# --- how it is put together -----------------------------------------------------------------


def _checked_stages(stages):
    stages = list(stages)
    if not stages:
        raise RecbalError("stages is empty; give one Stage or more.")
    for stage in stages:
        _inputs.count(stage.epochs, "epochs", 1)
        weight = stage.positive_weight
        if weight != "balanced" and not (np.isfinite(weight) and weight > 0):
            raise RecbalError(
                f"positive_weight is {weight!r}; give 'balanced' or a number above 0."
            )
        if not 0 < stage.hardest <= 1:
            raise RecbalError(f"hardest is {stage.hardest!r}; give a share above 0, at most 1.")
    return stages


def _stage_rows(stage, codes, score):
    if stage.hardest == 1:
        return np.arange(len(codes))
    return hardest(score(), codes, stage.hardest)
