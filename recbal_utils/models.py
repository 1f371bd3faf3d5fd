"""The Keras models of the book, as scikit-learn estimators where rows fit in memory."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from recbal_utils.errors import RecbalError

SCORING_ROWS = 65_536


def preprocessing():
    """Return a pipeline that takes logarithms, log(1 + x), and standardises; float32 out.

    For non-negative columns of long tails, such as the log's counts. Fit it on training rows.
    """
    return make_pipeline(
        FunctionTransformer(_log1p, feature_names_out="one-to-one"), StandardScaler()
    )


def _log1p(X):
    return np.log1p(np.asarray(X, dtype=np.float32))


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A feed-forward network for two classes, trained by Adam with a falling step size.

    Parameters
    ----------
    hidden : tuple of int, default (64,)
        Units of the hidden layers.
    epochs : int, default 5
    batch_size : int, default 2048
    learning_rate : float, default .004
        At the start; it falls to 0 along a cosine.
    loss : str or keras.losses.Loss, default "binary_crossentropy"
        Of labels and outputs of shape (batch, 1).
    logits : bool, default False
        True if the loss wants log-odds: the output is then linear while training, and
        `predict_proba` puts it through the logistic function.
    class_weight : "balanced" or dict {0: float, 1: float}, optional
        "balanced" as in scikit-learn: n / (2 n_class).
    initial_rate : float in (0, 1) or "train", default .5
        What the network predicts, on average, before its first step. "train" is the rate of the
        training rows. With rare positives, one half is far off, and the first steps are spent on
        coming down.
    random_state : int, default 0
        Sets Keras's global seed, so that two runs on one machine agree.

    Attributes
    ----------
    model_ : keras.Model
    history_ : dict of list
        Loss of each epoch.
    classes_ : ndarray of shape (2,)
    """

    def __init__(
        self,
        hidden=(64,),
        epochs=5,
        batch_size=2048,
        learning_rate=0.004,
        loss="binary_crossentropy",
        logits=False,
        class_weight=None,
        initial_rate=0.5,
        random_state=0,
    ):
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.loss = loss
        self.logits = logits
        self.class_weight = class_weight
        self.initial_rate = initial_rate
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        """Train on X of shape (n, d) and y of shape (n,), both classes in it.

        Raises
        ------
        RecbalError
            If y does not hold two classes, or the loss stops being finite.
        """
        import keras

        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise RecbalError(
                f"y holds {len(self.classes_)} class(es), and this network needs two: use more "
                "rows, or a split that keeps both."
            )
        keras.utils.set_random_seed(int(self.random_state or 0))
        self.model_ = self._compiled(X.shape[1], len(X), codes.mean())
        fitted = self.model_.fit(
            X,
            codes.astype(np.float32)[:, None],
            sample_weight=None if sample_weight is None else np.asarray(sample_weight, np.float32),
            class_weight=self._class_weight(codes),
            epochs=self.epochs,
            batch_size=self.batch_size,
            verbose=0,
        )
        self.history_ = fitted.history
        if not np.isfinite(self.history_["loss"]).all():
            raise RecbalError("The network's loss is not finite: lower learning_rate.")
        return self

    def predict_proba(self, X):
        """Return probabilities of shape (n, 2), in float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        parts = [
            np.asarray(self.model_(X[i : i + SCORING_ROWS])) for i in range(0, len(X), SCORING_ROWS)
        ]
        p = np.concatenate(parts)[:, 0].astype(np.float64)
        if self.logits:
            p = 1 / (1 + np.exp(-p))
        return np.column_stack([1 - p, p])

    def predict(self, X):
        """Return the more probable class of each row, shape (n,)."""
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]

    def _compiled(self, n_features, n_rows, rate):
        import keras

        rate = rate if self.initial_rate == "train" else self.initial_rate
        if not 0 < rate < 1:
            raise RecbalError(f"initial_rate is {rate!r}; give 'train' or a number in (0, 1).")
        model = self._network(n_features, float(np.log(rate) - np.log1p(-rate)))
        steps = self.epochs * -(-n_rows // self.batch_size)
        decay = keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)
        per_call = int(np.clip(steps // self.epochs, 1, 100))
        model.compile(keras.optimizers.Adam(decay), self.loss, steps_per_execution=per_call)
        return model

    def _network(self, n_features, start):
        """The layers; the last one begins at the log-odds `start`. Not compiled yet."""
        import keras

        inputs = x = keras.Input((n_features,))
        for units in self.hidden:
            x = keras.layers.Dense(units, activation="relu")(x)
        activation = None if self.logits else "sigmoid"
        bias = keras.initializers.Constant(start)
        output = keras.layers.Dense(1, activation=activation, bias_initializer=bias)(x)
        return keras.Model(inputs, output)

    def _class_weight(self, codes):
        if self.class_weight == "balanced":
            return dict(enumerate(len(codes) / (2 * np.bincount(codes))))
        if self.class_weight is None:
            return None
        return {code: self.class_weight[name] for code, name in enumerate(self.classes_.tolist())}
