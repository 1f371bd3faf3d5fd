"""Federated averaging: stores train on their own rows, and only weights and sums leave them.

`fed_avg` is the plain loop of McMahan et al. (2017). `secure_sum` is the sum by pairwise masks of
Bonawitz et al. (2017), without its key agreement and its recovery of clients that drop out: enough
to see what a server learns, not enough to deploy. `moments` standardises features from such sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recbal_utils.errors import RecbalError

FRACTION_BITS = 32  # of the fixed-point numbers that are masked
LARGEST_SUM = 2.0 ** (63 - FRACTION_BITS)


@dataclass(frozen=True)
class Client:
    """A store and the rows that stay with it.

    Attributes
    ----------
    name : str
    X : ndarray of float32, shape (n, d)
    y : ndarray of shape (n,), 0 or 1
    """

    name: str
    X: np.ndarray
    y: np.ndarray

    def __len__(self):
        return len(self.y)


def clients_of(X, y, stores) -> list[Client]:
    """Cut rows into one client a store, sorted by store.

    Parameters
    ----------
    X : array-like of shape (n, d)
    y : array-like of shape (n,)
        0 or 1.
    stores : array-like of shape (n,)

    Raises
    ------
    RecbalError
        Lengths differ, or there are no rows.
    """
    X, y, stores = np.asarray(X, np.float32), np.asarray(y), np.asarray(stores)
    if not len(X) == len(y) == len(stores) or not len(y):
        raise RecbalError(
            f"X has {len(X)} rows, y {len(y)} and stores {len(stores)}; give one of each a row."
        )
    order = np.argsort(stores, kind="stable")
    names, starts = np.unique(stores[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [Client(str(name), X[rows], y[rows]) for name, rows in zip(names, parts, strict=True)]


# --- training -----------------------------------------------------------------------------------


def network(n_features: int, hidden: int = 32, rate: float = 0.5, seed: int = 0):
    """Return a Keras network from standardised features to log-odds.

    Parameters
    ----------
    n_features : int
    hidden : int, default 32
        Units of its one hidden layer.
    rate : float in (0, 1), default .5
        What it predicts on average before its first step.
    seed : int, default 0
        Of its first weights; sets Keras's global seed.
    """
    import keras

    keras.utils.set_random_seed(seed)
    start = keras.initializers.Constant(float(np.log(rate) - np.log1p(-rate)))
    inputs = keras.Input((n_features,))
    x = keras.layers.Dense(hidden, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, bias_initializer=start)(x))


def log_odds(weights: Sequence[np.ndarray], X: np.ndarray) -> np.ndarray:
    """Log-odds of rows, float64 of shape (n,), by the weights of a `network`, in plain NumPy."""
    first, first_bias, last, last_bias = weights
    hidden = np.maximum(np.asarray(X, np.float32) @ first + first_bias, 0)
    return (hidden @ last + last_bias)[:, 0].astype(np.float64)


class LocalTraining:
    """What a client does with the weights it is sent: passes of SGD over its own rows.

    Parameters
    ----------
    model : keras.Model
        From features to one log-odds; it is the place where clients take turns.
    batch_size : int, default 256
    passes : int, default 1
        Over the client's rows, each in a new random order.
    """

    def __init__(self, model, batch_size: int = 256, passes: int = 1):
        import tensorflow as tf

        self.model, self.batch_size, self.passes = model, batch_size, passes
        spec = [tf.TensorSpec((None, model.input_shape[1])), tf.TensorSpec((None,))]
        self._pass = tf.function(self._one_pass, input_signature=[*spec, tf.TensorSpec(())])

    def __call__(self, weights, client: Client, learning_rate: float, rng) -> list[np.ndarray]:
        """Return the client's weights after its passes, starting from `weights`."""
        self.model.set_weights(weights)
        for _ in range(self.passes):
            order = rng.permutation(len(client))
            self._pass(client.X[order], client.y[order].astype(np.float32), learning_rate)
        return self.model.get_weights()

    def _one_pass(self, X, y, learning_rate):
        import tensorflow as tf

        variables = [variable.value for variable in self.model.trainable_variables]
        for start in tf.range(0, tf.shape(X)[0], self.batch_size):
            x, labels = X[start : start + self.batch_size], y[start : start + self.batch_size]
            with tf.GradientTape() as tape:
                z = self.model(x, training=True)[:, 0]
                losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, z)
                loss = tf.reduce_mean(losses)
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
                variable.assign_sub(learning_rate * gradient)


def average(weights: Sequence[Sequence[np.ndarray]], sizes: Sequence[float]) -> list[np.ndarray]:
    """Mean of the clients' weights, each counted by its number of rows.

    Raises
    ------
    RecbalError
        There are no clients, a size for each is missing, or their sum is not above 0.
    """
    if not len(weights) or len(weights) != len(sizes) or not sum(sizes) > 0:
        raise RecbalError(
            f"{len(weights)} sets of weights and {len(sizes)} sizes cannot be averaged: give one "
            "size for each, with a sum above 0."
        )
    total = float(sum(sizes))
    return [
        sum(np.float64(n / total) * part for n, part in zip(sizes, parts, strict=True)).astype(
            parts[0].dtype
        )
        for parts in zip(*weights, strict=True)
    ]


def decayed(learning_rate: float, step: int, steps: int) -> float:
    """Step size of round `step` of `steps`: it falls from `learning_rate` along half a cosine."""
    return learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))


def fed_avg(
    weights: Sequence[np.ndarray],
    clients: Sequence[Client],
    local: Callable,
    *,
    rounds: int,
    learning_rate: float,
    seed: int = 0,
    after_round: Callable | None = None,
) -> list[np.ndarray]:
    """Federated averaging: send the weights out, let every client train, average what comes back.

    Parameters
    ----------
    weights : list of ndarray
        To start from.
    clients : sequence of Client
    local : callable
        `local(weights, client, learning_rate, rng)` returns the client's weights, as
        `LocalTraining` does.
    rounds : int
    learning_rate : float
        In the first round; see `decayed`.
    seed : int, default 0
        Of the order of rows; each client and round has its own stream.
    after_round : callable, optional
        `after_round(number, weights)`, numbers from 1.

    Returns
    -------
    list of ndarray

    References
    ----------
    H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, algorithm 1 with every client in every round.
    """
    weights = list(weights)
    for number in range(rounds):
        rate = decayed(learning_rate, number, rounds)
        returned = [
            local(weights, client, rate, np.random.default_rng((seed, number, place)))
            for place, client in enumerate(clients)
        ]
        weights = average(returned, [len(client) for client in clients])
        if after_round is not None:
            after_round(number + 1, weights)
    return weights


def bytes_sent(weights: Sequence[np.ndarray], n_clients: int, rounds: int) -> int:
    """Bytes over the network: every round sends the weights to every client and back."""
    return 2 * rounds * n_clients * sum(part.nbytes for part in weights)


# --- sums that hide their parts -----------------------------------------------------------------


def masked(vectors: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """What each client sends: its numbers in fixed point, plus masks that cancel in the sum.

    Every pair of clients shares a stream of random 64-bit numbers; the first of the two adds it,
    the second subtracts it, modulo 2**64.

    Parameters
    ----------
    vectors : sequence of ndarray of shape (m,)
        One a client; sums of absolute values below 2**31.
    seed : int, default 0
        Stands in for the keys that pairs would agree on.

    Returns
    -------
    ndarray of uint64, shape (clients, m)

    Raises
    ------
    RecbalError
        Values are not finite or too large for the fixed point, or there are fewer than 3 clients:
        of two, each could subtract its own part from the sum.
    """
    values = np.asarray(vectors, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise RecbalError(
            f"vectors has the shape {values.shape}; give one row for each of 3 clients or more."
        )
    if not np.isfinite(values).all() or np.abs(values).sum(axis=0).max(initial=0) >= LARGEST_SUM:
        raise RecbalError(
            f"A sum is not finite or reaches {LARGEST_SUM:.3g}: divide the values by a constant "
            "that all clients know."
        )
    sent = np.rint(values * 2.0**FRACTION_BITS).astype(np.int64).view(np.uint64)
    for i in range(len(sent)):
        for j in range(i + 1, len(sent)):
            rng = np.random.default_rng((seed, i, j))
            mask = rng.integers(0, 2**64, size=values.shape[1], dtype=np.uint64)
            sent[i] += mask
            sent[j] -= mask
    return sent


def unmasked_sum(sent: np.ndarray) -> np.ndarray:
    """Sum of all clients' numbers, float64 of shape (m,), from what they sent: the masks cancel."""
    total = sent.sum(axis=0, dtype=np.uint64).view(np.int64)
    return total.astype(np.float64) / 2.0**FRACTION_BITS


def secure_sum(vectors: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Sum of one vector a client, from masked vectors only; within 2**-33 a client of the sum.

    Parameters, errors: as for `masked`.
    """
    return unmasked_sum(masked(vectors, seed))


def moments(clients: Sequence[Client], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of log(1 + x) over the rows of all clients, by secure sums.

    Parameters
    ----------
    clients : sequence of Client
        With raw, non-negative features.
    seed : int, default 0

    Returns
    -------
    mean, deviation : ndarray of float32, shape (d,)
        A deviation of 0 becomes 1.

    Raises
    ------
    RecbalError
        As `masked`.
    """
    sums = secure_sum([_sums(np.log1p(client.X)) for client in clients], seed)
    n, (first, second) = sums[0], np.split(sums[1:], 2)
    mean = first / n
    deviation = np.sqrt(np.maximum(second / n - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)


def standardised(client: Client, mean: np.ndarray, deviation: np.ndarray) -> Client:
    """Return the client with log(1 + x), less the mean, over the deviation, as its features."""
    return Client(client.name, (np.log1p(client.X) - mean) / deviation, client.y)


def _sums(values):
    """Rows, sums and sums of squares, as one vector."""
    values = values.astype(np.float64)
    return np.concatenate([[len(values)], values.sum(axis=0), (values**2).sum(axis=0)])
