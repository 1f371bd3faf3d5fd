"""Differentially private training, its accountant, and tests of what synthetic rows give away.

`noisy_gradient` is the step of Abadi et al. (2016): clip the gradient of each unit, add them up,
add Gaussian noise. A unit is what is protected: a row, or a household with several of its rows.
The accountant is that of the package `dp_accounting`. TensorFlow is imported only when training.
"""

import dp_accounting
import numpy as np
from dp_accounting import rdp
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from recbal_utils.errors import RecbalError
from recbal_utils.federated import decayed

# Orders of the Rényi divergences. Below 2 the series for sampled batches may not converge.
ORDERS = (*np.arange(20, 110) / 10, *range(11, 64), 128, 256, 512)
CONVERSIONS = ("tight", "moments")
MOMENTS = range(2, 34)  # Abadi et al. look at moments up to 32, which is one order higher
NOISE_RANGE = (0.2, 500.0)
PARALLEL = 1e-6  # how far the cosine of two directions on one line may lie from 1


# --- the accountant -----------------------------------------------------------------------------


def epsilon(
    noise: float, rate: float, steps: int, delta: float, *, conversion: str = "tight"
) -> float:
    """ε of DP-SGD with Poisson-sampled batches, by Rényi accounting, for adding or removing a unit.

    Parameters
    ----------
    noise : float
        Standard deviation of the noise over the clipping norm, above 0.
    rate : float in (0, 1]
        Chance of a unit to be in a batch.
    steps : int
        At least 1.
    delta : float in (0, 1)
        Below one over the number of units.
    conversion : {"tight", "moments"}, default "tight"
        From Rényi divergences to ε: that of the package, or the looser one of Abadi et al. (2016),
        for comparison with what they published.

    Raises
    ------
    RecbalError
        A value is out of range.

    References
    ----------
    I. Mironov, K. Talwar, L. Zhang, "Rényi Differential Privacy of the Sampled Gaussian
    Mechanism", 2019.
    """
    if not (noise > 0 and 0 < rate <= 1 and steps >= 1 and 0 < delta < 1):
        raise RecbalError(
            f"noise={noise}, rate={rate}, steps={steps}, delta={delta}: give a noise above 0, a "
            "rate in (0, 1], at least one step and a delta in (0, 1)."
        )
    if conversion not in CONVERSIONS:
        raise RecbalError(f"conversion is {conversion!r}; choose one of {CONVERSIONS}.")
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    many = dp_accounting.SelfComposedDpEvent(step, int(steps))
    accountant = rdp.RdpAccountant(orders=ORDERS)
    accountant.compose(many)
    if conversion == "tight":
        return float(accountant.get_epsilon(delta))
    return min(_of_order(order, many, delta) for order in MOMENTS)


def _of_order(order, event, delta):
    """ε by the divergence of one order: Rényi divergence plus ln(1/δ) / (order - 1)."""
    accountant = rdp.RdpAccountant(orders=[order])
    accountant.compose(event)
    (divergence,) = accountant._rdp
    return float(divergence + np.log(1 / delta) / (order - 1))


def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """Return the least noise, to three digits, whose ε is at most `target`.

    Parameters: as for `epsilon`.

    Raises
    ------
    RecbalError
        As `epsilon`, or no noise from 0.2 to 500 leads to the target.
    """
    low, high = NOISE_RANGE
    excess = lambda noise: epsilon(noise, rate, steps, delta) - target
    if not excess(high) < 0 < excess(low):
        raise RecbalError(
            f"No noise from {low} to {high:.0f} gives ε = {target} at rate {rate}, {steps} steps "
            f"and δ = {delta}: change the steps or the rate."
        )
    found = brentq(excess, low, high, xtol=1e-4)
    return float(np.ceil(found * 1000) / 1000)


# --- the step -----------------------------------------------------------------------------------


def unit_gradients(model, X, y):
    """Gradient of each unit's mean loss, as one row a unit.

    Parameters
    ----------
    model : keras.Model
        From features to one log-odds.
    X : tensor of shape (units, rows, d)
        Every unit with the same number of rows; 1 where a unit is a row.
    y : tensor of shape (units, rows), 0 or 1

    Returns
    -------
    tensor of float32, shape (units, parameters)
    """
    import tensorflow as tf

    variables = [variable.value for variable in model.trainable_variables]

    def of_one(unit):
        x, labels = unit
        with tf.GradientTape() as tape:
            z = model(x, training=True)[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, z))
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, variables)], axis=0)

    return tf.vectorized_map(of_one, (X, y))


def clipped(gradients, norm: float):
    """Gradients of shape (units, parameters), none longer than `norm`; shorter ones stay."""
    import tensorflow as tf

    lengths = tf.norm(gradients, axis=1, keepdims=True)
    return gradients * tf.minimum(1.0, norm / tf.maximum(lengths, 1e-12))


def noisy_gradient(model, X, y, *, norm: float, noise: float, batch: float, seed):
    """Sum of the units' clipped gradients plus noise, over the expected number of units.

    Parameters
    ----------
    model, X, y
        As for `unit_gradients`. There may be no unit at all, as Poisson sampling may draw none.
    norm : float
        Longest gradient of a unit.
    noise : float
        Standard deviation of the noise, in units of `norm`.
    batch : float
        Expected number of units in a batch. Not the actual one, which would tell of a unit.
    seed : tensor of two int32
        Of the noise.

    Returns
    -------
    tensor of float32, shape (parameters,)
    """
    import tensorflow as tf

    total = tf.reduce_sum(clipped(unit_gradients(model, X, y), norm), axis=0)
    spread = tf.random.stateless_normal(tf.shape(total), seed)
    return (total + noise * norm * spread) / batch


class PrivateTraining:
    """DP-SGD on a Keras model: Poisson-sampled units, clipped gradients, Gaussian noise.

    Parameters
    ----------
    model : keras.Model
        From features to one log-odds; trained in place.
    rate : float in (0, 1]
        Chance of each unit to be in a batch.
    steps : int
    noise : float
        As in `epsilon`; 0 gives clipping without privacy.
    norm : float, default 1.0
    learning_rate : float, default .5
        At the start; falls to 0 along half a cosine.
    momentum : float, default .9
        Of what has noise already, which costs no privacy.
    seed : int, default 0
        For repeatable experiments. Who publishes a model must draw it in secret.
    """

    def __init__(
        self, model, rate, steps, noise, norm=1.0, learning_rate=0.5, momentum=0.9, seed=0
    ):
        import tensorflow as tf

        self.model, self.rate, self.steps, self.noise, self.norm = model, rate, steps, noise, norm
        self.learning_rate, self.momentum, self.seed = learning_rate, momentum, seed
        d = model.input_shape[1]
        spec = [tf.TensorSpec((None, None, d)), tf.TensorSpec((None, None))]
        more = [tf.TensorSpec((2,), tf.int32), tf.TensorSpec(()), tf.TensorSpec(())]
        self._velocity = tf.Variable(tf.zeros(model.count_params()))
        self._step = tf.function(self._one_step, input_signature=[*spec, *more])

    def fit(self, n_units: int, rows_of):
        """Train; returns self.

        Parameters
        ----------
        n_units : int
        rows_of : callable
            `rows_of(units, rng)` returns X of shape (units, rows, d) and y of shape
            (units, rows) for positions of units. What it draws, it must draw from each unit alone.
        """
        import tensorflow as tf

        rng = np.random.default_rng(self.seed)
        for number in range(self.steps):
            units = np.flatnonzero(rng.random(n_units) < self.rate)
            X, y = rows_of(units, rng)  # perhaps of nobody: a step left out would tell that
            rate = decayed(self.learning_rate, number, self.steps)
            seed = tf.constant([self.seed, number], tf.int32)
            self._step(X, y, seed, rate, self.rate * n_units)
        return self

    def _one_step(self, X, y, seed, learning_rate, batch):
        import tensorflow as tf

        settings = {"norm": self.norm, "noise": self.noise, "batch": batch, "seed": seed}
        gradient = noisy_gradient(self.model, X, y, **settings)
        self._velocity.assign(self.momentum * self._velocity + gradient)
        start = 0
        for variable in self.model.trainable_variables:
            size = int(np.prod(variable.shape))
            part = tf.reshape(self._velocity[start : start + size], variable.shape)
            variable.value.assign_sub(learning_rate * part)
            start += size


# --- what synthetic rows give away --------------------------------------------------------------


def distance_to_nearest(rows, others) -> np.ndarray:
    """Euclidean distance of each row to the nearest of `others`, shape (n,).

    Parameters
    ----------
    rows, others : array-like of shape (n, d), (m, d)
        Standardised alike.
    """
    found = NearestNeighbors(n_neighbors=1).fit(np.asarray(others)).kneighbors(np.asarray(rows))
    return found[0][:, 0]


def on_lines(rows, synthetic, n_near: int = 50) -> np.ndarray:
    """For each row, pairs of nearby synthetic rows that lie with it on one line, on one side.

    SMOTE puts its rows on lines from a real row to its neighbours. Two synthetic rows of one such
    line point the same way from the real row; from any other row they hardly ever do.

    Parameters
    ----------
    rows : array-like of shape (n, d)
        Candidates: was it among the real rows?
    synthetic : array-like of shape (m, d)
    n_near : int, default 50
        Synthetic rows looked at, the nearest ones.

    Returns
    -------
    ndarray of int, shape (n,)

    References
    ----------
    After G. Ganev et al., "SMOTE and Mirrors", ICLR 2026, whose attacks find the lines among
    synthetic rows alone; here the candidate is given.
    """
    rows, synthetic = np.asarray(rows, np.float64), np.asarray(synthetic, np.float64)
    near = NearestNeighbors(n_neighbors=min(n_near, len(synthetic))).fit(synthetic)
    counts = np.zeros(len(rows), dtype=int)
    for i, neighbours in enumerate(near.kneighbors(rows, return_distance=False)):
        towards = synthetic[neighbours] - rows[i]
        lengths = np.linalg.norm(towards, axis=1)
        towards = towards[lengths > 1e-9] / lengths[lengths > 1e-9, None]
        cosines = towards @ towards.T
        counts[i] = (np.triu(cosines, 1) > 1 - PARALLEL).sum()
    return counts


def membership_auc(members, others) -> float:
    """Area under the ROC curve of a score that should be higher for members; 0.5 tells nothing.

    Parameters
    ----------
    members, others : array-like of shape (n,), (m,)
        Scores of rows that were used, and of rows like them that were not.
    """
    labels = np.r_[np.ones(len(members)), np.zeros(len(others))]
    return float(roc_auc_score(labels, np.r_[members, others]))
