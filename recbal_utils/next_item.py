"""What a household buys next: counting baselines, and neural models with a head for repeats.

Every model scores the whole catalogue for the baskets of a `baskets.Histories`. A score is a
function of the first and the last basket wanted, as `recbal_utils.catalogue` takes it.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from scipy import sparse

from recbal_utils import baskets as bk
from recbal_utils import catalogue, losses
from recbal_utils.errors import RecbalError

SEQUENCE = ("recent", "age")
ENCODERS = ("average", "gru", "transformer")
KERAS_NAMES = (
    "BasketCrossentropy",
    "BasketMeans",
    "Batches",
    "DrawnCrossentropy",
    "OnCatalogue",
    "Places",
)
FORGIVEN = 0.8
BACK_OFF = 1e-6  # of popularity: decides only among types a household never bought
Score = Callable[[int, int], np.ndarray]


# --- counting -------------------------------------------------------------------------------


def popularity(counts) -> Score:
    """Score every basket by the same counts.

    Parameters
    ----------
    counts : array-like of shape (n_items,)
    """
    counts = np.asarray(counts, dtype=np.float32)
    return lambda start, stop: np.broadcast_to(counts, (stop - start, len(counts)))


def personal(history: bk.Histories, counts, half_life: float | None = None) -> Score:
    """Score by how often the household bought each type; by popularity where it never did.

    Parameters
    ----------
    history : Histories
    counts : array-like of shape (n_items,)
        Popularity, which only orders types the household never bought.
    half_life : float, optional
        Days after which a purchase counts half, one of `baskets.HALF_LIVES`; by default a
        purchase counts 1 for ever.

    Raises
    ------
    RecbalError
        If the half-life is another.
    """
    if half_life is None:
        values = history.purchases
    elif half_life in bk.HALF_LIVES:
        values = history.recent[:, bk.HALF_LIVES.index(half_life)]
    else:
        raise RecbalError(f"half_life is {half_life!r}; choose None or one of {bk.HALF_LIVES}.")
    bought = history.matrix(values.astype(np.float32))
    fallback = BACK_OFF * np.asarray(counts, dtype=np.float32) / np.max(counts)
    return lambda start, stop: bought[start:stop].toarray() + fallback


def households(baskets: bk.Baskets, weeks) -> sparse.csr_array:
    """Which household bought which type in some weeks: CSR array of float32 0 and 1."""
    inside = np.flatnonzero(np.isin(baskets.week, list(weeks)))
    _, code = np.unique(baskets.household[inside], return_inverse=True)
    member = sparse.csr_array((np.ones(len(inside), np.float32), (code, np.arange(len(inside)))))
    return ((member @ baskets.items[inside].astype(np.float32)) > 0).astype(np.float32)


def item_similarity(bought: sparse.csr_array) -> np.ndarray:
    """Cosine of the columns of a household × item table of 0 and 1; the diagonal is 0.

    Two types are alike if the same households buy them (G. Linden et al., "Amazon.com
    Recommendations: Item-to-Item Collaborative Filtering", IEEE Internet Computing 7(1), 2003).
    """
    both = (bought.T @ bought).toarray()
    norm = np.sqrt(np.maximum(np.diag(both), 1))
    alike = both / np.outer(norm, norm)
    np.fill_diagonal(alike, 0)
    return alike.astype(np.float32)


def ease(bought: sparse.csr_array, penalty: float = 1000.0) -> np.ndarray:
    """Item-to-item weights by ridge regression, each type on all others, in closed form.

    Parameters
    ----------
    bought : CSR array of shape (n_households, n_items)
    penalty : float
        Above 0.

    Returns
    -------
    ndarray of shape (n_items, n_items), float32
        Its diagonal is 0.

    Raises
    ------
    RecbalError
        If the penalty is not positive.

    References
    ----------
    H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """
    if not penalty > 0:
        raise RecbalError(f"penalty is {penalty!r}; give a number above 0.")
    gram = (bought.T @ bought).toarray().astype(np.float64)
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def item_to_item(history: bk.Histories, weights) -> Score:
    """Score each item by the sum of its weights from all types the household bought before.

    Parameters
    ----------
    history : Histories
    weights : ndarray of shape (n_items, n_items)
        From the row's item to the column's; see `item_similarity` and `ease`.
    """
    known = history.matrix().astype(np.float32)
    return lambda start, stop: np.asarray(known[start:stop] @ weights)


# --- judging --------------------------------------------------------------------------------

LISTS = ("all", "repeats", "first-time")


def judge(score: Score, bought, known, *, tiers=None, k: int = 20, lists=LISTS) -> pd.DataFrame:
    """Return recall@k and NDCG@k of each basket, for three kinds of list.

    Parameters
    ----------
    score : callable
        See the module's docstring.
    bought : CSR array of bool, shape (n, n_items)
        What the baskets hold.
    known : CSR array of bool, shape (n, n_items)
        What their households had bought before.
    tiers : array-like of shape (n_items,), optional
        See `catalogue.per_user`.
    lists : sequence of str
        "all": the whole catalogue is ranked, every item of the basket is to be found. "repeats":
        the same list, only items bought before are to be found. "first-time": known types are
        left out of the list, and only new types of the basket are to be found.

    Returns
    -------
    pandas.DataFrame
        Indexed by list and basket; columns as of `catalogue.per_user`. A metric is NaN where
        there is nothing to be found.
    """
    whole = score(0, bought.shape[0])
    asked = {
        "all": (bought, None),
        "repeats": (sparse.csr_array(bought.multiply(known), dtype=bool), None),
        "first-time": (bought > known, known),
    }
    frames = {
        name: catalogue.per_user(whole, relevant, k=k, exclude=left_out, tiers=tiers)
        for name, (relevant, left_out) in asked.items()
        if name in lists
    }
    return pd.concat(frames, names=["list", "basket"])


def shown(score: Score, n: int, n_items: int, *, exclude=None, k: int = 20) -> np.ndarray:
    """In how many of n baskets' lists each item stands, shape (n_items,)."""
    top = catalogue.top_k(score, n, k, exclude=exclude)
    return catalogue.exposure(top, n_items)


# --- neural models --------------------------------------------------------------------------


def inputs(baskets, rows, history, *, n_places=256, n_baskets=8, length=64) -> dict:
    """Return what the neural models take, arrays with a row for each chosen basket.

    Parameters
    ----------
    baskets : Baskets
    rows : array-like of int
    history : Histories
        Of the same rows.
    n_places : int
        Known types kept, see `baskets.padded`.
    n_baskets, length : int
        How far sequences look back, see `baskets.sequences`.

    Returns
    -------
    dict
        `known` (n, n_places) ids, `pairs` (n, n_places, n_features), `recent` (n, length) ids,
        `age` (n, length).
    """
    known, pairs = bk.padded(history, n_places)
    recent, age = bk.sequences(baskets, rows, n_baskets, length)
    return {"known": known, "pairs": pairs, "recent": recent, "age": age}


def build(
    n_items,
    popular,
    pair_statistics,
    *,
    encoder="average",
    repeat=True,
    dim=64,
    dropout=0.2,
    forgiven=FORGIVEN,
    n_places=256,
    n_baskets=8,
    length=64,
):
    """Return a functional Keras model: padded ids in, a logit for each item of the catalogue out.

    The logit of item i is u·v_i + b_i, plus, with `repeat`, a function r of the household's
    history with i where there is one. The user vector u comes from the encoder.

    Parameters
    ----------
    n_items : int
    popular : array-like of shape (n_items,)
        Counts in the training weeks; ln of their shares is where b starts.
    pair_statistics : (mean, variance), arrays of shape (n_features,)
        Of the training pairs; see `pair_statistics`.
    encoder : {"average", "gru", "transformer"}
        "average": mean of item vectors over all known types, weighted by a function of the pair
        features. The others add what the last baskets, each the mean of its items, come to:
        "gru" by a gated recurrent unit, "transformer" by causal self-attention.
    repeat : bool
        False leaves r out, and the average then takes all weights alike.
    dim : int
        Length of user and item vectors.
    dropout : float
        In [0, 1), on the user vector.
    forgiven : float
        How much of b a known type is given back at the start, in [0, 1]: a household's own
        habits are better told by its history than by what others buy.
    n_places, n_baskets, length : int
        As for `inputs`.

    Returns
    -------
    keras.Model
        Takes a dict of arrays as `inputs` returns it; of shape (B, n_items) out.

    Raises
    ------
    RecbalError
        If the encoder is unknown.

    References
    ----------
    P. Ren et al., "RepeatNet", AAAI 2019, for a mode of its own for repeats; B. Hidasi et al.,
    "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016; W.-C. Kang and
    J. McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.
    """
    import keras
    from keras import layers

    if encoder not in ENCODERS:
        raise RecbalError(f"encoder is {encoder!r}; choose one of {', '.join(ENCODERS)}.")
    mean, variance = pair_statistics
    known = keras.Input((n_places,), dtype="int32", name="known")
    pairs = keras.Input((n_places, len(mean)), name="pairs")
    taken = {"known": known, "pairs": pairs}
    on_catalogue = _keras()["OnCatalogue"](n_items)
    hidden = layers.Normalization(mean=mean, variance=variance, name="standardised")(pairs)
    hidden = layers.Dense(16, activation="relu", name="pair_hidden")(hidden)
    user = _average(known, hidden if repeat else None, on_catalogue, dim)
    if encoder != "average":
        taken |= {name: keras.Input((length,), dtype="int32", name=name) for name in SEQUENCE}
        late = _sequence(taken["recent"], taken["age"], encoder, n_items, n_baskets, dim)
        user = layers.Add()([user, late])
    user = layers.Dropout(dropout)(_refined(user, dim, dropout))
    share = np.maximum(popular, 1) / np.sum(popular)
    start = keras.initializers.Constant(np.log(share))
    logits = layers.Dense(
        n_items, kernel_initializer=_vectors(), bias_initializer=start, name="items"
    )(user)
    if repeat:
        again_start = keras.initializers.Constant(_unpopular(share, forgiven))
        own = layers.Embedding(
            n_items + bk.FIRST_ID, 1, embeddings_initializer=again_start, name="repeat_of_item"
        )(known)
        learned = layers.Dense(1, kernel_initializer="zeros", name="repeat")(hidden)
        again = layers.Add()([own, learned])
        logits = layers.Add()([logits, on_catalogue([known, again])])
    return keras.Model(taken, logits, name=encoder)


def pair_statistics(history: bk.Histories) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each pair feature, to standardise by."""
    features = history.features.astype(np.float64)
    return features.mean(axis=0), features.var(axis=0)


def _unpopular(share, forgiven):
    """Column of -forgiven ln(share) for the ids of the catalogue; 0 for padding and unknown."""
    return np.r_[np.zeros(bk.FIRST_ID), -forgiven * np.log(share)][:, None]


def _average(known, hidden, on_catalogue, dim):
    """Mean of item vectors over known types, in proportion to learned weights."""
    from keras import layers, ops

    if hidden is None:
        weight = ops.ones_like(known, dtype="float32")[..., None]
    else:
        weight = layers.Dense(1, activation="softplus", kernel_initializer="zeros", name="weight")(
            hidden
        )
    spread = layers.UnitNormalization()(on_catalogue([known, weight]))
    return layers.Dense(dim, use_bias=False, kernel_initializer=_vectors(), name="vectors")(spread)


def _vectors():
    from keras import initializers

    return initializers.RandomNormal(stddev=0.1)


def _sequence(recent, age, encoder, n_items, n_baskets, dim):
    """What the last baskets, oldest first, come to."""
    from keras import layers, ops

    vectors = layers.Embedding(
        n_items + bk.FIRST_ID, dim, embeddings_initializer=_vectors(), name="recent_vectors"
    )(recent)
    steps = _keras()["BasketMeans"](n_baskets)([vectors, age])
    if encoder == "gru":
        return layers.GRU(dim, name="gru")(layers.Masking()(steps))
    there = ops.any(ops.not_equal(steps, 0), axis=-1)[:, None, :]
    steps = _keras()["Places"]()(steps)
    seen = layers.MultiHeadAttention(2, dim // 2, name="attention")(
        steps, steps, attention_mask=there, use_causal_mask=True
    )
    steps = layers.LayerNormalization()(layers.Add()([steps, seen]))
    wide = layers.Dense(dim, name="narrow")(layers.Dense(2 * dim, "relu", name="wide")(steps))
    return layers.LayerNormalization()(layers.Add()([steps, wide]))[:, -1]


def _refined(user, dim, dropout):
    from keras import layers

    hidden = layers.Dense(dim, "tanh", name="user_hidden")(layers.Dropout(dropout)(user))
    change = layers.Dense(dim, kernel_initializer="zeros", name="user_change")(hidden)
    return layers.Add()([user, change])


def scores(model, arrays: dict, n_items: int, block: int = 512) -> Score:
    """Return the model's logits for rows of `arrays`, computed when asked for.

    Parameters
    ----------
    model : keras.Model
    arrays : dict
        As `inputs` returns it.
    n_items : int
    block : int
        Rows scored at a time.

    Raises
    ------
    RecbalError
        If an id is out of range. (Keras would read past a table on some machines.)
    """
    for name in ("known", "recent"):
        bk.check_ids(arrays[name], n_items)
    wanted = [tensor.name for tensor in model.inputs]

    def score(start, stop):
        parts = []
        for first in range(start, stop, block):
            rows = slice(first, min(first + block, stop))
            taken = {name: _single(arrays[name][rows]) for name in wanted}
            parts.append(np.asarray(model(taken, training=False)))
        return np.concatenate(parts)

    return score


def compile_model(model, loss, n_steps: int, learning_rate: float = 0.01) -> None:
    """Compile with Adam whose step size falls to 0 along a cosine over all training steps."""
    import keras

    falling = keras.optimizers.schedules.CosineDecay(learning_rate, n_steps)
    model.compile(keras.optimizers.Adam(falling), loss)


def _single(array):
    return array.astype(np.float32) if array.dtype == np.float16 else array


# --- what Keras needs to know ---------------------------------------------------------------


def __getattr__(name):
    if name in KERAS_NAMES:
        return _keras()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *KERAS_NAMES])


@cache
def _keras():
    """Define and register layers, losses and batches; not at import, for TensorFlow is slow."""
    import keras
    from keras import ops

    register = keras.saving.register_keras_serializable(package="recbal_utils")

    @register
    class OnCatalogue(keras.layers.Layer):
        """Spread values of padded ids over the catalogue: (B, P) ids, (B, P, 1) to (B, n_items).

        Values of one id add up; padding and unknown types are left out.
        """

        def __init__(self, n_items, **options):
            super().__init__(**options)
            self.n_items = n_items

        def call(self, inputs):
            ids, values = inputs
            rows = ops.shape(ids)[0]
            width = self.n_items + bk.FIRST_ID
            row = ops.broadcast_to(ops.arange(rows, dtype=ids.dtype)[:, None], ops.shape(ids))
            at = ops.reshape(ops.stack([row, ids], axis=-1), (-1, 2))
            spread = ops.scatter(at, ops.reshape(values, (-1,)), (rows, width))
            return spread[:, bk.FIRST_ID :]

        def compute_output_shape(self, shapes):
            return (shapes[0][0], self.n_items)

        def get_config(self):
            return super().get_config() | {"n_items": self.n_items}

    @register
    class BasketMeans(keras.layers.Layer):
        """Mean vector of each of the last baskets: (B, K, d), ages (B, K) to (B, n_baskets, d).

        Oldest first; 0 where there is no basket.
        """

        def __init__(self, n_baskets, **options):
            super().__init__(**options)
            self.n_baskets = n_baskets

        def call(self, inputs):
            vectors, age = inputs
            member = ops.one_hot(age, self.n_baskets + 1, dtype=vectors.dtype)[..., :0:-1]
            total = ops.matmul(ops.transpose(member, (0, 2, 1)), vectors)
            return total / ops.maximum(ops.sum(member, axis=1), 1)[..., None]

        def compute_output_shape(self, shapes):
            return (shapes[0][0], self.n_baskets, shapes[0][2])

        def get_config(self):
            return super().get_config() | {"n_baskets": self.n_baskets}

    @register
    class Places(keras.layers.Layer):
        """Add a trained vector to each place of a sequence (B, L, d)."""

        def build(self, shape):
            self.place = self.add_weight(shape=shape[1:], initializer="zeros", name="place")

        def call(self, steps):
            return steps + self.place

    @register
    class BasketCrossentropy(keras.losses.Loss):
        """Softmax cross-entropy over many chosen items: labels (B, n_items), logits (B, n_items).

        A label is the item's weight among the chosen, 0 for others, below 0 for an item that is
        no candidate in this row: it leaves the softmax. Weights of a row add up to 1, or to 0
        for a row that does not count.
        """

        def call(self, y_true, y_pred):
            logits = ops.where(y_true < 0, -1e9, y_pred)
            weight = ops.maximum(y_true, 0)
            whole = ops.sum(weight, axis=1) * ops.logsumexp(logits, axis=1)
            return whole - ops.sum(weight * y_pred, axis=1)

    @register
    class DrawnCrossentropy(keras.losses.Loss):
        """Softmax cross-entropy of one chosen item against all items, or a few drawn ones.

        Labels (B, 1 + m): the chosen column of the catalogue, then those of m drawn negatives.
        With m = 0 the softmax runs over the whole catalogue.

        Parameters
        ----------
        log_q : array-like of shape (n_items,), optional
            Log-probability of each item to be drawn, to correct by; None for no correction.
        in_batch : bool
            True if negative k is the chosen item of row k: a row's own is then left out once.
        """

        def __init__(self, log_q=None, in_batch=False, name="drawn_crossentropy", **options):
            super().__init__(name=name, **options)
            self.log_q = None if log_q is None else np.asarray(log_q, np.float32).tolist()
            self.in_batch = in_batch

        def call(self, y_true, y_pred):
            y_true = ops.cast(y_true, "int32")
            chosen = ops.take_along_axis(y_pred, y_true[:, :1], axis=1)[:, 0]
            if y_true.shape[1] == 1:
                return ops.logsumexp(y_pred, axis=1) - chosen
            drawn = ops.take_along_axis(y_pred, y_true[:, 1:], axis=1)
            itself = ops.eye(ops.shape(drawn)[0], dtype="bool") if self.in_batch else None
            if self.log_q is None:
                return losses.sampled_softmax(chosen, drawn, hits=itself)
            log_q = ops.take(ops.convert_to_tensor(self.log_q), y_true)
            return losses.sampled_softmax(chosen, drawn, log_q[:, 0], log_q[:, 1:], hits=itself)

        def get_config(self):
            return super().get_config() | {"log_q": self.log_q, "in_batch": self.in_batch}

    class Batches(keras.utils.PyDataset):
        """Baskets to train on, in a new order each epoch.

        A share of each batch's baskets becomes a puzzle about new types: some types are hidden
        from the household's history, as if never bought, and the model has to tell those, and
        the types that are new in the basket, from all others that it does not see. The rest ask
        for the basket as it is.

        Parameters
        ----------
        model : keras.Model
            Whose inputs the batches are for.
        arrays : dict
            As `inputs` returns it.
        items : CSR array of bool, shape (n, n_items)
            What the baskets hold.
        batch_size : int
        puzzles : float
            In [0, 1], the share of each batch.
        hidden : (float, float)
            Least and greatest share of a history that is hidden.
        draw : None, "full", "batch" or "popular"
            None: labels for `BasketCrossentropy`. Else labels for `DrawnCrossentropy`: an item of
            each basket, drawn anew each epoch, alone, with those of the other baskets in the
            batch, or with `n_drawn` negatives drawn by popularity.
        popular : array-like of shape (n_items,), optional
            Probabilities for "popular".
        n_drawn : int
        seed : int
        """

        def __init__(
            self,
            model,
            arrays,
            items,
            *,
            batch_size=256,
            puzzles=0.4,
            hidden=(0.05, 0.5),
            draw=None,
            popular=None,
            n_drawn=255,
            seed=0,
        ):
            super().__init__()
            for name in ("known", "recent"):
                bk.check_ids(arrays[name], items.shape[1])
            self.arrays = {tensor.name: arrays[tensor.name] for tensor in model.inputs}
            self.items, self.batch_size = items, batch_size
            self.puzzles, self.hidden = puzzles if draw is None else 0, hidden
            self.draw, self.popular, self.n_drawn = draw, popular, n_drawn
            self.seed, self.epoch = seed, 0
            self.on_epoch_end()

        def __len__(self):
            return self.items.shape[0] // self.batch_size

        def on_epoch_end(self):
            self.epoch += 1
            rng = np.random.default_rng([self.seed, self.epoch])
            self.order = rng.permutation(self.items.shape[0])

        def __getitem__(self, number):
            rng = np.random.default_rng([self.seed, self.epoch, number])
            at = self.order[number * self.batch_size : (number + 1) * self.batch_size]
            arrays = {name: _single(values[at]) for name, values in self.arrays.items()}
            items = self.items[at]
            if self.draw is not None:
                return arrays, self._drawn(rng, items)
            labels = items.toarray().astype(np.float32)
            labels /= labels.sum(axis=1, keepdims=True)
            n_puzzles = round(self.puzzles * len(at))
            if n_puzzles:
                self._hide(rng, arrays, labels, n_puzzles)
            return arrays, labels

        def _hide(self, rng, arrays, labels, n):
            known, row = arrays["known"][:n], np.arange(n)[:, None]
            share = rng.uniform(*self.hidden, (n, 1))
            gone = np.zeros((n, labels.shape[1] + bk.FIRST_ID), bool)
            gone[row, known] = rng.random(known.shape) < share
            gone[:, : bk.FIRST_ID] = False
            seen = np.zeros_like(gone)
            seen[row, known] = True
            seen = (seen & ~gone)[:, bk.FIRST_ID :]
            for name in {"known", "recent"} & set(arrays):
                ids = arrays[name][:n]
                ids[gone[row, ids]] = bk.PADDING
            wanted = (gone[:, bk.FIRST_ID :] | (labels[:n] > 0)) & ~seen
            labels[:n] = wanted / np.maximum(wanted.sum(axis=1, keepdims=True), 1)
            labels[:n][seen] = -1

        def _drawn(self, rng, items):
            size = np.diff(items.indptr)
            chosen = items.indices[items.indptr[:-1] + rng.integers(0, size)]
            if self.draw == "full":
                return chosen[:, None]
            drawn = chosen
            if self.draw == "popular":
                drawn = rng.choice(len(self.popular), self.n_drawn, p=self.popular)
            drawn = np.broadcast_to(drawn, (len(chosen), len(drawn)))
            return np.column_stack([chosen, drawn])

    names = (OnCatalogue, BasketMeans, Places, BasketCrossentropy, DrawnCrossentropy, Batches)
    return {kind.__name__: kind for kind in names}
