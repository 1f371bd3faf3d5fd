"""Several kinds of input in one network: joined early, late, or through a gate.

The columns of X stand in groups, such as numbers, text vectors and time series. `FusionClassifier`
gets them together in three ways; `between` makes new vectors on the segments between given ones.
"""

import numpy as np

from recbal_utils import _inputs
from recbal_utils.errors import RecbalError
from recbal_utils.models import NetworkClassifier

WAYS = ("early", "late", "gated")


class FusionClassifier(NetworkClassifier):
    """A network for two classes whose columns stand in groups.

    Parameters
    ----------
    groups : mapping of str to int
        Columns of each kind of input, in the order in which they stand in X.
    how : {"early", "late", "gated"}, default "early"
        - early: all columns enter one hidden layer.
        - late: each group has a hidden layer and log-odds of its own, which are added.
        - gated: each group has a hidden layer; a softmax over the groups, computed from all
          columns, weighs these layers row by row before one output.
    hidden : tuple of int, default (64,)
        Units of the hidden layers; of each group where groups have layers of their own.
    epochs, batch_size, learning_rate, loss, class_weight, initial_rate, random_state
        As for `recbal_utils.models.NetworkClassifier`.

    Attributes
    ----------
    model_, history_, classes_
        As for `recbal_utils.models.NetworkClassifier`.

    Notes
    -----
    The gate is a plain form of the gated multimodal unit of J. Arevalo et al. (2017),
    arXiv:1702.01992.
    """

    def __init__(
        self,
        groups,
        how="early",
        hidden=(64,),
        epochs=5,
        batch_size=2048,
        learning_rate=0.004,
        loss="binary_crossentropy",
        class_weight=None,
        initial_rate=0.5,
        random_state=0,
    ):
        super().__init__(
            hidden=hidden,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            loss=loss,
            class_weight=class_weight,
            initial_rate=initial_rate,
            random_state=random_state,
        )
        self.groups = groups
        self.how = how

    def gate(self, X):
        """Return the weight of each group in each row, shape (n, n_groups); rows sum to 1.

        Raises
        ------
        RecbalError
            If the network has no gate.
        """
        import keras

        if self.how != "gated":
            raise RecbalError(f"how is {self.how!r}: only a gated network has a gate.")
        part = keras.Model(self.model_.inputs, self.model_.get_layer("gate").output)
        return np.asarray(part.predict(np.asarray(X, np.float32), verbose=0, batch_size=65_536))

    def _network(self, n_features, start):
        import keras

        self._check(n_features)
        inputs = keras.Input((n_features,))
        output = {"early": self._early, "late": self._late, "gated": self._gated}[self.how]
        return keras.Model(inputs, keras.layers.Activation("sigmoid")(output(inputs, start)))

    def _early(self, inputs, start):
        return _log_odds(self._layers(inputs), start)

    def _late(self, inputs, start):
        import keras

        first, *others = self._parts(inputs)
        parts = [_log_odds(self._layers(first), start)]
        parts += [_log_odds(self._layers(part), 0.0) for part in others]
        return keras.layers.Add()(parts) if others else parts[0]

    def _gated(self, inputs, start):
        import keras

        gate = keras.layers.Dense(len(self.groups), activation="softmax", name="gate")(inputs)
        states = [self._layers(part) for part in self._parts(inputs)]
        weighed = [state * gate[:, i : i + 1] for i, state in enumerate(states)]
        return _log_odds(keras.layers.Add()(weighed) if len(weighed) > 1 else weighed[0], start)

    def _layers(self, x):
        import keras

        for units in self.hidden:
            x = keras.layers.Dense(units, activation="relu")(x)
        return x

    def _parts(self, inputs):
        ends = np.cumsum(list(self.groups.values()))
        return [inputs[:, end - n : end] for n, end in zip(self.groups.values(), ends, strict=True)]

    def _check(self, n_features):
        if self.how not in WAYS:
            raise RecbalError(f"how is {self.how!r}; choose one of {', '.join(WAYS)}.")
        widths = [_inputs.count(n, f"groups[{name!r}]", 1) for name, n in self.groups.items()]
        if sum(widths) != n_features:
            raise RecbalError(
                f"The groups name {sum(widths)} columns and X has {n_features}: give the number "
                "of columns of each group, in the order of X."
            )


def _log_odds(x, start):
    import keras

    return keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(start))(x)


def between(vectors, n_new, *, n_neighbours=5, random_state=0):
    """Make vectors between neighbours, as SMOTE does, and say between which.

    Parameters
    ----------
    vectors : array-like of shape (n, d)
        At least 2 rows.
    n_new : int
        How many to make, at least 1.
    n_neighbours : int, default 5
        A partner is drawn among so many nearest other rows (all of them if there are fewer).
    random_state : int, default 0

    Returns
    -------
    made : ndarray of shape (n_new, d)
        ``(1 - u) * vectors[first] + u * vectors[second]``.
    first, second : ndarray of int, shape (n_new,)
        Positions of the two parents.
    u : ndarray of shape (n_new,)
        In [0, 1), drawn uniformly.

    Raises
    ------
    RecbalError
        If there are fewer than 2 rows, or a number is out of range.

    References
    ----------
    N. V. Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16, 2002.
    """
    from sklearn.neighbors import NearestNeighbors

    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise RecbalError(f"vectors has shape {vectors.shape}; give 2 rows or more to lie between.")
    n_new = _inputs.count(n_new, "n_new", 1)
    k = min(_inputs.count(n_neighbours, "n_neighbours", 1), len(vectors) - 1)
    rng = np.random.default_rng(_inputs.count(random_state, "random_state", 0))
    near = NearestNeighbors(n_neighbors=k).fit(vectors).kneighbors(return_distance=False)
    first = rng.integers(len(vectors), size=n_new)
    second = near[first, rng.integers(k, size=n_new)]
    u = rng.random(n_new)
    made = vectors[first] + u[:, None] * (vectors[second] - vectors[first])
    return made, first, second, u
