"""Two-tower retrieval: a household and a product each become a vector, and meet as a product.

Each tower is a functional Keras model of its own, which saves, loads and exports. `Retrieval`
joins two of them for training, with negatives from the batch and, if wanted, from the catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from recbal_utils import _inputs, losses
from recbal_utils.errors import RecbalError

PADDING, UNKNOWN, FIRST_ID = 0, 1, 2
NEGATIVES = ("in-batch", "in-batch, logQ", "in-batch, logQ, hits removed", "mixed, logQ")
SCORING_ROWS = 4096


# --- what a tower reads ---------------------------------------------------------------------


@dataclass(frozen=True)
class Bags:
    """Rows of padded ids with a weight each: words of a text, codes, types in a history.

    Attributes
    ----------
    ids : ndarray of int32, shape (n, length)
        0 is padding, 1 unknown, real ids run from 2 to n_ids - 1.
    weights : ndarray of float32, shape (n, length)
        0 where there is padding.
    n_ids : int
        Size of the table of embeddings.

    Raises
    ------
    RecbalError
        If shapes differ, or an id is outside 0 to n_ids - 1: native code would crash on it.
    """

    ids: np.ndarray
    weights: np.ndarray
    n_ids: int

    def __post_init__(self):
        if self.ids.ndim != 2 or self.ids.shape != self.weights.shape:
            raise RecbalError(
                f"ids and weights must share a shape (n, length); they have {self.ids.shape} and "
                f"{self.weights.shape}."
            )
        if self.ids.dtype.kind not in "iu":
            raise RecbalError(f"ids must be whole numbers; their type is {self.ids.dtype}.")
        if self.ids.size and (self.ids.min() < 0 or self.ids.max() >= self.n_ids):
            raise RecbalError(
                f"ids run from {self.ids.min()} to {self.ids.max()}, and the table holds 0 to "
                f"{self.n_ids - 1}: map what is unknown to {UNKNOWN}."
            )

    def __len__(self):
        return len(self.ids)

    def take(self, rows) -> list[np.ndarray]:
        """Inputs of a tower for some rows."""
        return [self.ids[rows], self.weights[rows]]


@dataclass(frozen=True)
class Vectors:
    """Rows of numbers, such as embeddings of texts: float32 of shape (n, d)."""

    values: np.ndarray

    def __post_init__(self):
        if self.values.ndim != 2 or not np.isfinite(self.values).all():
            raise RecbalError(
                f"values must be finite numbers of shape (n, d); the shape is {self.values.shape}."
            )

    def __len__(self):
        return len(self.values)

    def take(self, rows) -> list[np.ndarray]:
        """Inputs of a tower for some rows."""
        return [self.values[rows]]


def word_bags(texts: Sequence[str], known: np.ndarray) -> Bags:
    """Return the TF-IDF of texts as bags: a layer that sums embeddings is linear in it.

    Parameters
    ----------
    texts : sequence of str, of length n
    known : ndarray of bool, shape (n,)
        Texts from which words and their frequencies are learnt; other words are left out.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = np.asarray(texts, dtype=object)
    vectors = TfidfVectorizer(token_pattern=r"[a-z0-9.]+", dtype=np.float32).fit(texts[known])
    return _bags_of(vectors.transform(texts))


def code_bags(columns: Sequence[np.ndarray]) -> Bags:
    """Return bags of one id from each column of codes (1 unknown, others from 2), weighing 1.

    The columns share one table: each gets its own range of ids, and all share the id 1.
    """
    parts, start = [], 0
    for codes in map(np.asarray, columns):
        parts.append(np.where(codes >= FIRST_ID, codes + start, UNKNOWN))
        start += max(int(codes.max()) - UNKNOWN, 0)
    ids = np.column_stack(parts).astype(np.int32)
    return Bags(ids, np.ones(ids.shape, dtype=np.float32), start + FIRST_ID)


def hashed(codes: np.ndarray, n_buckets: int) -> np.ndarray:
    """Return codes from 2 put into buckets: 2 + a multiplicative hash; 0 and 1 stay.

    With fewer buckets than codes some share a bucket, and so an embedding.
    """
    codes, n_buckets = np.asarray(codes), _inputs.count(n_buckets, "n_buckets", 1)
    mixed = (codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)
    buckets = (mixed % np.uint64(n_buckets)).astype(np.int32) + FIRST_ID
    return np.where(codes >= FIRST_ID, buckets, codes).astype(np.int32)


def centred(values: np.ndarray, known: np.ndarray) -> Vectors:
    """Return vectors minus the mean of the known ones, scaled to a mean square of 1 a column.

    Sentence embeddings share a large common part, which tells products apart no better than a
    constant would, and their columns are small.
    """
    values = np.asarray(values, dtype=np.float32)
    moved = values - values[known].mean(axis=0)
    return Vectors(moved / np.sqrt(np.mean(moved[known] ** 2)))


def _bags_of(matrix) -> Bags:
    """Bags of a sparse matrix: ids are its columns + 2, weights its values."""
    matrix = matrix.tocsr()
    counts = np.diff(matrix.indptr)
    ids = np.zeros((matrix.shape[0], max(int(counts.max()), 1)), dtype=np.int32)
    weights = np.zeros(ids.shape, dtype=np.float32)
    rows = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
    ids[rows, places], weights[rows, places] = matrix.indices + FIRST_ID, matrix.data
    return Bags(ids, weights, matrix.shape[1] + FIRST_ID)


# --- towers ---------------------------------------------------------------------------------


def tower(reads: Bags | Vectors, *, hidden: int = 64, dimension: int = 64, name: str = "tower"):
    """Return a functional Keras model from what it reads to vectors of shape (n, dimension).

    Bags: a weighted sum of embeddings of width `hidden` (`keras_rs.layers.EmbedReduce`), a ramp,
    a linear layer. Vectors: a layer of `hidden` ramps, a linear layer.

    Parameters
    ----------
    reads : Bags or Vectors
        Only shapes and `n_ids` matter.
    hidden, dimension : int, default 64
    name : str
        Of the model; letters, digits and "_".
    """
    import keras

    hidden = _inputs.count(hidden, "hidden", 1)
    dimension = _inputs.count(dimension, "dimension", 1)
    if isinstance(reads, Bags):
        import keras_rs

        length = reads.ids.shape[1]
        inputs = [keras.Input((length,), dtype="int32"), keras.Input((length,))]
        table = keras_rs.layers.EmbedReduce(
            int(reads.n_ids),
            hidden,
            combiner="sum",
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.1),
        )
        x = keras.layers.Activation("relu")(table(*inputs))
    else:
        inputs = [keras.Input((reads.values.shape[1],))]
        x = keras.layers.Dense(hidden, activation="relu")(inputs[0])
    return keras.Model(inputs, keras.layers.Dense(dimension)(x), name=name)


def vectors(model, reads: Bags | Vectors) -> np.ndarray:
    """Return a tower's vectors of all rows: float32 of shape (n, dimension)."""
    starts = range(0, len(reads), SCORING_ROWS)
    rows = [slice(start, start + SCORING_ROWS) for start in starts]
    return np.concatenate([np.asarray(model(reads.take(part))) for part in rows])


# --- negatives ------------------------------------------------------------------------------


class StreamingFrequency:
    """How often an item comes, learnt from a stream of batches without counting it all.

    For each item: the batch in which it was last seen, and a moving average of the gaps between
    batches. The inverse of the gap is the probability that a batch holds it.

    Parameters
    ----------
    n_items : int
        Items are 0 to n_items - 1 (hash larger catalogues first).
    rate : float in (0, 1], default .05
        Weight of a new gap in the average.
    start : float, default 1000
        Gap assumed of an item that was never seen, in batches: n_items / batch size, were all
        alike. Where it is far off, rare items stay wrong for long.

    References
    ----------
    X. Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019, algorithm 2.
    """

    def __init__(self, n_items: int, rate: float = 0.05, start: float = 1000.0):
        if not 0 < rate <= 1 or not start >= 1:
            raise RecbalError(f"rate is {rate!r} and start {start!r}: need (0, 1] and 1 or more.")
        self.rate, self.batches = float(rate), 0
        self.last = np.zeros(_inputs.count(n_items, "n_items", 1))
        self.gap = np.full(n_items, float(start))

    def update(self, items: np.ndarray) -> None:
        """See the items of the next batch, repeats included."""
        seen = np.unique(items)
        if len(seen) and (seen[0] < 0 or seen[-1] >= len(self.gap)):
            raise RecbalError(
                f"items run from {seen[0]} to {seen[-1]}; there are 0 to {len(self.gap) - 1}."
            )
        self.batches += 1
        gaps = self.batches - self.last[seen]
        self.gap[seen] += self.rate * (gaps - self.gap[seen])
        self.last[seen] = self.batches

    def log_q(self, items: np.ndarray, batch_size: int) -> np.ndarray:
        """Return ln Q of a single draw, with Q = 1 / (gap * batch size), float32.

        An item that is in every batch has a gap of 1 however often it is in it: its Q cannot
        rise above 1 / batch size, which is too low for what is more popular than that.
        """
        return -np.log(self.gap[items] * batch_size).astype(np.float32)


def exact_log_q(counts: np.ndarray) -> np.ndarray:
    """Return ln of each item's share of draws, float32; an item never drawn counts one half."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.log(np.maximum(counts, 0.5) / counts.sum()).astype(np.float32)


def mixed_log_q(log_q: np.ndarray, n_items: int, batch_size: int, n_uniform: int) -> np.ndarray:
    """Return ln Q of a draw from the batch or, n_uniform times, from all items alike.

    Q is (B q + m / n) / (B + m) with q = exp(log_q), B draws from the batch, m of n uniform ones.

    References
    ----------
    J. Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural Networks in
    Recommendations", WWW 2020 companion.
    """
    draws = batch_size + n_uniform
    mixed = (batch_size * np.exp(np.asarray(log_q, np.float64)) + n_uniform / n_items) / draws
    return np.log(mixed).astype(np.float32)


# --- training -------------------------------------------------------------------------------


def retrieval(household, product, negatives: str = "in-batch, logQ", *, learning_rate=0.003):
    """Return both towers as one Keras model, compiled, to train on `batches`.

    A score is the inner product of the two vectors; the loss is `losses.in_batch_softmax`, for
    mixed negatives `losses.sampled_softmax` over the batch and the uniform draws together.

    Parameters
    ----------
    household, product : keras.Model
        Towers of one dimension. They are trained in place.
    negatives : str
        One of `NEGATIVES`. All but "in-batch" subtract ln Q from every score, the positive's too.
    learning_rate : float or schedule, default .003
        Of Adam, which moves only those rows of a table of embeddings that a batch holds, so that
        a step costs the same whatever the number of rows. (Keras 3.15's own Adam squares the
        gradients of a row's repeats in a batch one by one, and so steps too far.)

    Raises
    ------
    RecbalError
        If `negatives` is none of these, or the towers differ in dimension.
    """
    if negatives not in NEGATIVES:
        raise RecbalError(f"negatives is {negatives!r}; choose one of {'; '.join(NEGATIVES)}.")
    if household.output_shape[-1] != product.output_shape[-1]:
        raise RecbalError(
            f"The towers end in {household.output_shape[-1]} and {product.output_shape[-1]} "
            "numbers: give them one dimension."
        )
    model = _keras_classes()["Retrieval"](household, product, negatives)
    model.compile(optimizer=_keras_classes()["LazyAdam"](learning_rate))
    return model


def batches(
    pairs: np.ndarray,
    households: Bags | Vectors,
    products: Bags | Vectors,
    *,
    batch_size: int = 512,
    steps: int = 150,
    log_q: np.ndarray | None = None,
    uniform: np.ndarray | None = None,
    n_uniform: int = 0,
    seed: int = 0,
):
    """Return a `keras.utils.PyDataset` of random batches of pairs, other ones in every epoch.

    Parameters
    ----------
    pairs : ndarray of int, shape (n, 2)
        Rows of `households` and of `products`; a batch draws pairs with replacement.
    households, products : Bags or Vectors
    batch_size : int, default 512
    steps : int, default 150
        Batches of an epoch.
    log_q : ndarray of float32, shape (n_products,), optional
        ln Q of each product for one draw; needed by the losses with logQ.
    uniform : ndarray of int, optional
        Products from which `n_uniform` more negatives are drawn, all alike.
    n_uniform : int, default 0
    seed : int, default 0
    """
    pairs = np.asarray(pairs)
    for column, reads in enumerate((households, products)):
        if pairs[:, column].min() < 0 or pairs[:, column].max() >= len(reads):
            raise RecbalError(
                f"Column {column} of pairs runs from {pairs[:, column].min()} to "
                f"{pairs[:, column].max()}; there are {len(reads)} rows."
            )
    settings = (batch_size, steps, log_q, uniform, n_uniform, seed)
    return _keras_classes()["Batches"](pairs, households, products, *settings)


@cache
def _keras_classes():
    """Define the classes; not at import, which would cost that of TensorFlow."""
    import keras
    from keras import ops

    class LazyAdam(keras.optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            import tensorflow as tf

            if not isinstance(gradient, tf.IndexedSlices):
                super().update_step(gradient, variable, learning_rate)
                return
            rows, place = tf.unique(gradient.indices)
            slope = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
            step = ops.cast(self.iterations + 1, slope.dtype)
            rate = ops.cast(learning_rate, slope.dtype)
            rate *= ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
            index = self._get_variable_index(variable)
            moved = []
            for moments, beta, value in (
                (self._momentums[index], self.beta_1, slope),
                (self._velocities[index], self.beta_2, slope**2),
            ):
                old = tf.gather(moments.value, rows)
                moved.append(beta * old + (1 - beta) * value)
                moments.value.scatter_update(tf.IndexedSlices(moved[-1], rows))
            change = rate * moved[0] / (ops.sqrt(moved[1]) + self.epsilon)
            table = variable if isinstance(variable, tf.Variable) else variable.value
            table.scatter_sub(tf.IndexedSlices(change, rows))

    class Retrieval(keras.Model):
        def __init__(self, household, product, negatives):
            super().__init__(name="retrieval")
            self.household, self.product, self.negatives = household, product, negatives

        def call(self, inputs):
            pairs = self.household(list(inputs["household"])), self.product(list(inputs["product"]))
            return ops.sum(pairs[0] * pairs[1], axis=1)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            household = self.household(list(x["household"]), training=training)
            product = self.product(list(x["product"]), training=training)
            log_q = None if self.negatives == "in-batch" else x["log_q"]
            if "drawn" not in x:
                hits = "remove" if self.negatives.endswith("hits removed") else "keep"
                each = losses.in_batch_softmax(household, product, x["item"], log_q, hits=hits)
            else:
                each = self.mixed(x, household, product, log_q)
            return ops.mean(each)

        def mixed(self, x, household, product, log_q):
            """Negatives: the other rows of the batch and the drawn products."""
            drawn = self.product(list(x["drawn"]))
            scores = ops.matmul(household, ops.transpose(ops.concatenate([product, drawn])))
            n = ops.shape(product)[0]
            itself = ops.cast(ops.eye(n, ops.shape(scores)[1]), "bool")
            return losses.sampled_softmax(
                ops.sum(household * product, axis=1),
                scores,
                log_q,
                ops.concatenate([log_q, x["drawn_log_q"]]),
                hits=itself,
            )

        def train_step(self, data):
            import tensorflow as tf

            x = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x)
            self._loss_tracker.update_state(loss)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": self._loss_tracker.result()}

    class Batches(keras.utils.PyDataset):
        def __init__(self, pairs, households, products, *settings):
            super().__init__()
            self.pairs, self.households, self.products = pairs, households, products
            self.batch_size, self.steps, self.log_q = settings[:3]
            self.uniform, self.n_uniform, self.seed = settings[3:]
            self.epoch = 0

        def __len__(self):
            return self.steps

        def on_epoch_end(self):
            self.epoch += 1

        def __getitem__(self, index):
            rng = np.random.default_rng([self.seed, self.epoch, index])
            rows = self.pairs[rng.integers(len(self.pairs), size=self.batch_size)]
            household, item = rows.T
            batch = {
                "household": tuple(self.households.take(household)),
                "product": tuple(self.products.take(item)),
                "item": item.astype(np.int32),
            }
            if self.log_q is not None:
                batch["log_q"] = self.log_q[item]
            if self.n_uniform:
                drawn = rng.choice(self.uniform, self.n_uniform)
                batch["drawn"] = tuple(self.products.take(drawn))
                batch["drawn_log_q"] = self.log_q[drawn]
            return (batch,)

    return {"Retrieval": Retrieval, "Batches": Batches, "LazyAdam": LazyAdam}
