"""Synthetic rows from a conditional Wasserstein GAN, as an imbalanced-learn sampler.

A generator turns noise into rows; a critic scores rows, and the gap between its mean scores of
real and of synthetic rows estimates how far apart the two are. Both see the class of the row,
and, where asked, some of its categories. TensorFlow is imported only when a sampler trains.

Numbers enter the networks by their ranks, so that a column of counts with many zeros becomes a
bell curve, and come back as values the column can take: whole numbers stay whole, and nothing
leaves the range that was seen.
"""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import pandas as pd
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from scipy import sparse
from scipy.special import ndtr, ndtri
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from recbal_utils.errors import RecbalError

MIN_ROWS = 10
N_DIRECTIONS = 100
TEMPERATURE = 0.5  # of the softmax that makes categories: the nearer to 0, the more one-hot
CHUNK = 65_536  # rows that a network makes at once


class GANSampler(BaseOverSampler):
    """Over-sample by a conditional Wasserstein GAN with gradient penalty.

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default "auto"
        As for every over-sampler of imbalanced-learn: a float is minority rows divided by
        majority rows after sampling, a dict gives the rows of each class.
    random_state : int, RandomState or None
        An int makes two fits on one machine equal.
    categorical_features : array-like of names, positions or bool, optional
        Columns to be made as categories. By default those of a DataFrame whose dtype is
        category, object, string or bool; none of an array.
    condition_on : list of names or positions, optional
        Categorical columns that are drawn from the training rows of the class, together, and
        given to both networks, instead of being made. Their mix is then right by construction.
    latent_dim : int, default 32
        Noise numbers of each row.
    hidden : tuple of int, default (128, 128)
        Units of the hidden layers, of generator and critic alike.
    batch_size : int, default 256
    max_steps : int, default 3000
        Steps of the generator at most.
    n_critic : int, default 2
        Steps of the critic for each of the generator.
    penalty : float, default 10.0
        Weight of the gradient penalty.
    learning_rate : float, default 2e-4
        Of Adam (beta_1 = 0.5, beta_2 = 0.9), for both networks.
    averaging : float, default 0.99
        In [0, 1): rows are made by a running mean of the generator's weights, of which each step
        keeps this share. 0 takes the last weights.
    validation_fraction : float, default 0.2
        Share of the rows of the classes to sample that neither network trains on. Every
        `check_every` steps the sliced Wasserstein distance between them and as many synthetic
        rows is measured. 0 trains to `max_steps` on all rows.
    check_every : int, default 100
    patience : int, default 10
        Training stops after this many checks without a smaller distance, and the generator of
        the smallest one is kept.
    verbose : int, default 0
        1 shows a progress bar.

    Attributes
    ----------
    history_ : DataFrame, indexed by step
        At each check `critic_gap` (mean score of real minus mean score of synthetic rows),
        `penalty` (mean squared excess of the gradient's length over 1) and `distance`.
    reference_distance_ : float
        The distance between the held-out rows and as many training rows: what a perfect
        generator would reach on average. NaN without held-out rows.
    best_step_ : int
        The step whose generator is kept.
    generator_, critic_ : keras.Model

    Notes
    -----
    The loss is that of Gulrajani et al. (2017); categories are made by the Gumbel softmax, as in
    Xu et al. (2019), whose sampling of categories by log-frequency is left out: rows are drawn as
    they come. Imbalance between the classes is the business of `sampling_strategy`.

    The result is real rows first, in their order, then synthetic ones; a DataFrame gets a new
    RangeIndex, as from SMOTE. A column of a float type whose training values are all whole
    numbers gets whole numbers. Sparse input is not supported.

    Examples
    --------
    >>> from recbal_utils.gan import GANSampler
    >>> sampler = GANSampler(sampling_strategy=0.1, random_state=0)
    >>> X_more, y_more = sampler.fit_resample(X, y)  # doctest: +SKIP
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        **BaseOverSampler._parameter_constraints,
        "categorical_features": ["array-like", None],
        "condition_on": ["array-like", None],
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "hidden": ["array-like"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "n_critic": [Interval(Integral, 1, None, closed="left")],
        "penalty": [Interval(Real, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="both")],
        "check_every": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "averaging": [Interval(Real, 0, 1, closed="left")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        sampling_strategy="auto",
        random_state=None,
        categorical_features=None,
        condition_on=None,
        latent_dim=32,
        hidden=(128, 128),
        batch_size=256,
        max_steps=3000,
        n_critic=2,
        penalty=10.0,
        learning_rate=2e-4,
        averaging=0.99,
        validation_fraction=0.2,
        check_every=100,
        patience=10,
        verbose=0,
    ):
        super().__init__(sampling_strategy=sampling_strategy)
        self.random_state = random_state
        self.categorical_features = categorical_features
        self.condition_on = condition_on
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.n_critic = n_critic
        self.penalty = penalty
        self.learning_rate = learning_rate
        self.averaging = averaging
        self.validation_fraction = validation_fraction
        self.check_every = check_every
        self.patience = patience
        self.verbose = verbose

    def sample(self, n_rows, label=None, random_state=None):
        """Make rows with the trained generator.

        Parameters
        ----------
        n_rows : int
        label : optional
            The class to make, one of those that `fit_resample` was asked to make; it may be
            left out where there was only one.
        random_state : int, RandomState or None

        Returns
        -------
        DataFrame or ndarray of shape (n_rows, n_features)
            As the X that was sampled, dtypes included.

        Raises
        ------
        RecbalError
            For a class that the sampler did not train on.
        """
        check_is_fitted(self, "generator_")
        rng = np.random.default_rng(_draw_seed(check_random_state(random_state)))
        given = self._conditions(label)
        drawn = given[rng.integers(len(given), size=n_rows)]
        rows = _generate(self, self.generator_, self._codec, drawn, rng)
        frame = self._codec.decode(rows, drawn)
        return frame if self._was_frame else frame.to_numpy(dtype=self._dtype)

    def _check_X_y(self, X, y):
        y, binarize_y = check_target_type(y, indicate_one_vs_all=True)
        X = _checked_rows(X)
        validate_data(self, X=X, y=y, reset=True, skip_check_array=True)
        if len(np.unique(y)) < 2:
            raise RecbalError("y holds one class only; a sampler needs rows of two classes.")
        return X, y, binarize_y

    def _fit_resample(self, X, y):
        wanted = {label: n for label, n in self.sampling_strategy_.items() if n > 0}
        if not wanted:
            return X, y
        _check_counts(y, wanted)
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
        generator = check_random_state(self.random_state)
        trained = self._train(frame, y, list(wanted), _draw_seed(generator))
        vars(self).update(trained)
        self._was_frame, self._dtype = isinstance(X, pd.DataFrame), getattr(X, "dtype", None)
        parts = [X, *(self.sample(n, label, generator) for label, n in wanted.items())]
        labels = [y, *(np.full(n, label, dtype=y.dtype) for label, n in wanted.items())]
        rows = pd.concat(parts, ignore_index=True) if self._was_frame else np.concatenate(parts)
        return rows, np.concatenate(labels)

    def _train(self, frame, y, labels, seed):
        """Return the attributes of a trained sampler."""
        rng = np.random.default_rng(seed)
        chosen = np.flatnonzero(np.isin(y, labels))
        codec = _Codec.of(
            frame.iloc[chosen],
            y[chosen],
            _positions(frame, self.categorical_features, "categorical_features"),
            _positions(frame, self.condition_on, "condition_on") or [],
        )
        rows, conditions = codec.encode(frame.iloc[chosen], y[chosen], rng)
        held_out = rng.permutation(len(rows)) < round(self.validation_fraction * len(rows))
        game = _Game(self, codec, seed)
        trial = _Trial(self, rows, conditions, held_out, rng)
        history = game.play(rows[~held_out], conditions[~held_out], trial)
        return {
            "generator_": game.average,
            "critic_": game.critic,
            "history_": history,
            "best_step_": trial.best_step or int(history.index[-1]),
            "reference_distance_": trial.reference,
            "_codec": codec,
            "_conditions_seen": conditions,
            "_labels": labels,
        }

    def _conditions(self, label):
        """Conditions of the training rows of a class, shape (n, condition_width)."""
        if label is None and len(self._labels) == 1:
            label = self._labels[0]
        if label not in self._labels:
            known = ", ".join(str(name) for name in self._labels)
            raise RecbalError(f"No rows of class {label} can be made; choose from {known}.")
        column = int(np.flatnonzero(self._codec.labels == label)[0])
        return self._conditions_seen[self._conditions_seen[:, column] > 0]


# --- what is accepted ---------------------------------------------------------------------


def _checked_rows(X):
    if sparse.issparse(X):
        raise RecbalError("X is sparse, and the GAN makes dense rows: pass X.toarray().")
    if not isinstance(X, pd.DataFrame):
        X = check_array(X, dtype=None, ensure_all_finite=False)
    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    for name, column in frame.items():
        missing = column.isna()
        if pd.api.types.is_numeric_dtype(column):
            missing |= ~np.isfinite(column.to_numpy(dtype=np.float64, na_value=np.nan))
        if missing.any():
            raise RecbalError(
                f"Column {name!r} of X has {int(missing.sum())} values that are missing or not "
                f"finite, the first in row {int(np.argmax(missing))}: fill or drop them."
            )
    return X


def _check_counts(y, wanted):
    for label in wanted:
        n_rows = int(np.sum(y == label))
        if n_rows < MIN_ROWS:
            raise RecbalError(
                f"Class {label} has {n_rows} rows, and a GAN needs at least {MIN_ROWS} to "
                "learn from: collect more, or use copies (RandomOverSampler)."
            )


def _positions(frame, columns, name):
    """Positions of columns named by label, position or a bool for each; None stays None."""
    if columns is None:
        return None
    asked = np.asarray(columns)
    if asked.dtype == bool and len(asked) == frame.shape[1]:
        return [int(i) for i in np.flatnonzero(asked)]
    known = list(frame.columns)
    try:
        return [known.index(c) if c in known else range(len(known))[c] for c in asked.tolist()]
    except (IndexError, TypeError):
        raise RecbalError(f"{name} is {columns!r}; X has the columns {known}.") from None


def _draw_seed(generator):
    return int(generator.randint(np.iinfo(np.int32).max))


# --- rows as the networks see them --------------------------------------------------------


@dataclass(frozen=True)
class _Number:
    """A numeric column by its ranks, as a normal score."""

    values: np.ndarray  # sorted
    whole: bool
    dtype: object
    width: int = 1

    @classmethod
    def of(cls, column):
        values = np.sort(column.to_numpy(dtype=np.float64))
        return cls(values, bool((values == np.rint(values)).all()), column.dtype)

    @property
    def takes_seen_values_only(self):
        return len(self.values) >= 2 * len(np.unique(self.values))

    def encode(self, column, rng):
        values, n = column.to_numpy(dtype=np.float64), len(self.values)
        below, upto = (np.searchsorted(self.values, values, side) for side in ("left", "right"))
        share = (below + rng.random(len(values)) * (upto - below)) / n
        return ndtri(np.clip(share, 0.25 / n, 1 - 0.25 / n))[:, None]

    def decode(self, block):
        place = ndtr(block[:, 0].astype(np.float64)) * len(self.values)
        if self.takes_seen_values_only:
            made = self.values[np.minimum(place.astype(int), len(self.values) - 1)]
        else:
            made = np.interp(place - 0.5, np.arange(len(self.values)), self.values)
        return pd.Series(np.rint(made) if self.whole else made).astype(self.dtype)


@dataclass(frozen=True)
class _Category:
    """A categorical column as one of its values seen."""

    seen: pd.Series

    @classmethod
    def of(cls, column):
        return cls(column.drop_duplicates().reset_index(drop=True))

    @property
    def width(self):
        return len(self.seen)

    def encode(self, column, _rng):
        codes = pd.Index(self.seen.astype(object)).get_indexer(column.astype(object))
        return np.eye(self.width)[codes]

    def decode(self, block):
        return self.seen.take(block.argmax(axis=1)).reset_index(drop=True)


@dataclass(frozen=True)
class _Codec:
    """Which part of a row is made, which is given, and how both are written as numbers."""

    columns: list
    codecs: list
    given: list
    labels: np.ndarray

    @classmethod
    def of(cls, frame, y, categorical, given):
        if categorical is None:
            is_number = pd.api.types.is_numeric_dtype
            categorical = [
                i
                for i, dtype in enumerate(frame.dtypes)
                if not is_number(dtype) or pd.api.types.is_bool_dtype(dtype)
            ]
        if not set(given) <= set(categorical):
            raise RecbalError("condition_on names a column that is not categorical.")
        if len(given) == frame.shape[1]:
            raise RecbalError("condition_on names every column, so there is nothing to make.")
        kinds = [_Category if i in categorical else _Number for i in range(frame.shape[1])]
        codecs = [kind.of(frame.iloc[:, i]) for i, kind in enumerate(kinds)]
        return cls(list(frame.columns), codecs, sorted(given), np.unique(y))

    @property
    def made(self):
        return [i for i in range(len(self.codecs)) if i not in self.given]

    @property
    def width(self):
        return sum(self.codecs[i].width for i in self.made)

    @property
    def condition_width(self):
        return len(self.labels) + sum(self.codecs[i].width for i in self.given)

    def blocks(self, positions, start=0):
        """Yield the position and the slice of each column."""
        for i in positions:
            yield i, slice(start, start + self.codecs[i].width)
            start += self.codecs[i].width

    def category_blocks(self):
        return [b for i, b in self.blocks(self.made) if isinstance(self.codecs[i], _Category)]

    def encode(self, frame, y, rng):
        """Return rows (n, width) and conditions (n, condition_width), float32."""
        parts = {i: self.codecs[i].encode(frame.iloc[:, i], rng) for i in range(len(self.codecs))}
        label = (y[:, None] == self.labels).astype(float)
        rows = np.hstack([parts[i] for i in self.made])
        conditions = np.hstack([label, *(parts[i] for i in self.given)])
        return rows.astype(np.float32), conditions.astype(np.float32)

    def decode(self, rows, conditions):
        columns = {i: self.codecs[i].decode(rows[:, b]) for i, b in self.blocks(self.made)}
        for i, block in self.blocks(self.given, len(self.labels)):
            columns[i] = self.codecs[i].decode(conditions[:, block])
        frame = pd.concat([columns[i] for i in range(len(self.codecs))], axis=1)
        return frame.set_axis(self.columns, axis=1)


# --- the game -----------------------------------------------------------------------------


def gradient_penalty(critic, rows):
    """Mean squared excess over 1 of the length of the critic's gradient.

    Parameters
    ----------
    critic : callable
        Maps a tensor of shape (n, d) to scores of shape (n, 1) or (n,), each row by itself.
    rows : tensor of shape (n, d)
        Points between real and synthetic rows.

    Returns
    -------
    tensor of shape ()

    References
    ----------
    I. Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
    """
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(rows)
        scores = critic(rows)
    slopes = tape.gradient(scores, rows)
    # The root of 0 has no finite slope.
    lengths = tf.sqrt(tf.reduce_sum(slopes**2, axis=1) + 1e-12)
    return tf.reduce_mean((lengths - 1) ** 2)


def sliced_wasserstein(a, b, directions):
    """Mean, over directions, of the Wasserstein-1 distance between two projected samples.

    Parameters
    ----------
    a, b : arrays of shape (n, d)
        Two samples of equal size.
    directions : array of shape (d, k)
        Columns of length 1.

    Returns
    -------
    float
        At least 0, in the unit of the rows. Two samples of one distribution stay above 0 by
        chance.
    """
    a, b = (np.sort(np.asarray(rows, np.float64) @ directions, axis=0) for rows in (a, b))
    return float(np.abs(a - b).mean())


class _Trial:
    """Judges the generator on rows held out, and remembers the best."""

    def __init__(self, settings, rows, conditions, held_out, rng):
        self.rows, self.conditions = rows[held_out], conditions[held_out]
        self.patience = settings.patience
        self.seed = int(rng.integers(2**31 - 1))
        directions = rng.normal(size=(rows.shape[1], N_DIRECTIONS))
        self.directions = directions / np.linalg.norm(directions, axis=0)
        train = np.flatnonzero(~held_out)
        same = rng.choice(train, size=len(self.rows), replace=False)
        self.reference = self.distance(rows[same])
        self.best, self.best_step, self.best_weights, self.waited = np.inf, 0, None, 0

    def distance(self, rows):
        if not len(self.rows):
            return np.nan
        return sliced_wasserstein(self.rows, rows, self.directions)

    def check(self, step, generator, make):
        """Measure the distance; return it, and whether to go on."""
        if not len(self.rows):
            return np.nan, True
        # The same noise at every check: the curve then moves with the generator alone.
        distance = self.distance(make(self.conditions, np.random.default_rng(self.seed)))
        self.waited += 1
        if distance < self.best:
            self.best, self.best_step, self.waited = distance, step, 0
            self.best_weights = generator.get_weights()
        return distance, self.waited < self.patience


class _Game:
    """Generator against critic."""

    def __init__(self, settings, codec, seed):
        import keras

        self.settings, self.codec, self.seed = settings, codec, seed
        n_given = codec.condition_width
        self.generator = _network(settings.latent_dim + n_given, settings.hidden, codec.width, seed)
        self.critic = _network(codec.width + n_given, settings.hidden, 1, seed + 100)
        self.average = keras.models.clone_model(self.generator)
        self.average.set_weights(self.generator.get_weights())
        self.optimisers = {}
        for network in (self.generator, self.critic):
            adam = keras.optimizers.Adam(settings.learning_rate, beta_1=0.5, beta_2=0.9)
            adam.build(network.trainable_variables)
            self.optimisers[id(network)] = adam

    def play(self, rows, conditions, trial):
        """Train; return the history, with the best generator's weights in place."""
        import keras
        import tensorflow as tf

        block = self._block(tf.constant(rows), tf.constant(conditions))
        last, every = self.settings.max_steps, self.settings.check_every
        bar = keras.utils.Progbar(last, verbose=self.settings.verbose)
        history, go_on = [], True
        for start in range(0, last, every):
            step = min(start + every, last)
            gap, penalty = block(tf.constant(start), tf.constant(step))
            record = {"step": step, "critic_gap": float(gap), "penalty": float(penalty)}
            _check_finite(record, self.generator)
            record["distance"], go_on = trial.check(step, self.average, self._rows)
            history.append(record)
            bar.update(step, [(k, record[k]) for k in ("critic_gap", "distance")], not go_on)
            if not go_on:
                break
        if trial.best_weights is not None:
            self.average.set_weights(trial.best_weights)
        return pd.DataFrame(history).set_index("step")

    def _rows(self, conditions, rng):
        return _generate(self.settings, self.average, self.codec, conditions, rng)

    def _block(self, rows, conditions):
        """Return a compiled function of many steps; it tells the last gap and penalty."""
        import tensorflow as tf

        n_critic = self.settings.n_critic

        @tf.function
        def block(start, stop):
            gap = penalty = tf.constant(0.0)
            for step in tf.range(start, stop):
                seed = tf.random.split(tf.stack([self.seed, step]), num=n_critic + 1)
                for turn in range(n_critic):
                    gap, penalty = self._critic_step(rows, conditions, seed[turn])
                self._generator_step(rows, conditions, seed[n_critic])
            return gap, penalty

        return block

    def _batch(self, rows, conditions, seed):
        """Real rows, synthetic rows, and the conditions of both."""
        import tensorflow as tf

        size = self.settings.batch_size
        seeds = tf.random.split(seed, num=3)
        drawn = tf.random.stateless_uniform((size,), seeds[0], 0, len(rows), tf.int32)
        given = tf.gather(conditions, drawn)
        noise = tf.random.stateless_normal((size, self.settings.latent_dim), seeds[1])
        raw = self.generator(tf.concat([noise, given], axis=1))
        made = _activate(raw, self.codec.category_blocks(), seeds[2])
        return tf.gather(rows, drawn), made, given

    def _critic_step(self, rows, conditions, seed):
        import tensorflow as tf

        real, made, given = self._batch(rows, conditions, seed)
        share = tf.random.stateless_uniform((len(real), 1), seed + 1)
        with tf.GradientTape() as tape:
            gap = tf.reduce_mean(self._score(real, given) - self._score(made, given))
            between = share * real + (1 - share) * made
            excess = gradient_penalty(lambda x: self._score(x, given), between)
            loss = self.settings.penalty * excess - gap
        self._improve(self.critic, tape, loss)
        return gap, excess

    def _generator_step(self, rows, conditions, seed):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            _, made, given = self._batch(rows, conditions, seed)
            loss = -tf.reduce_mean(self._score(made, given))
        self._improve(self.generator, tape, loss)
        pairs = zip(
            self.average.trainable_variables, self.generator.trainable_variables, strict=True
        )
        for mean, new in pairs:
            mean.assign(self.settings.averaging * mean + (1 - self.settings.averaging) * new)

    def _score(self, x, given):
        import tensorflow as tf

        return self.critic(tf.concat([x, given], axis=1))

    def _improve(self, network, tape, loss):
        weights = network.trainable_variables
        self.optimisers[id(network)].apply(tape.gradient(loss, weights), weights)


def _network(n_inputs, hidden, n_outputs, seed):
    import keras

    inputs = keras.Input((n_inputs,))
    x = inputs
    for i, units in enumerate(hidden):
        start = keras.initializers.HeNormal(seed=seed + i)
        x = keras.layers.Dense(units, "leaky_relu", kernel_initializer=start)(x)
    start = keras.initializers.GlorotUniform(seed=seed + len(hidden))
    return keras.Model(inputs, keras.layers.Dense(n_outputs, kernel_initializer=start)(x))


def _activate(raw, category_blocks, seed):
    """Numbers as they are; categories through the Gumbel softmax, nearly one-hot."""
    import tensorflow as tf

    uniform = tf.random.stateless_uniform(raw.shape, seed, minval=1e-6)
    noisy = (raw - tf.math.log(-tf.math.log(uniform))) / TEMPERATURE
    parts, end = [], 0
    for block in category_blocks:
        parts += [raw[:, end : block.start], tf.nn.softmax(noisy[:, block])]
        end = block.stop
    return tf.concat([*parts, raw[:, end:]], axis=1)


def _generate(settings, generator, codec, conditions, rng):
    """Rows of shape (n, width) for conditions of shape (n, condition_width), as NumPy."""
    made = []
    for given in np.array_split(conditions, 1 + len(conditions) // CHUNK):
        noise = rng.normal(size=(len(given), settings.latent_dim)).astype(np.float32)
        raw = np.array(generator(np.hstack([noise, given])))
        for block in codec.category_blocks():
            noisy = raw[:, block] + rng.gumbel(size=raw[:, block].shape)
            raw[:, block] = np.eye(noisy.shape[1])[noisy.argmax(axis=1)]
        made.append(raw)
    return np.concatenate(made)


def _check_finite(record, generator):
    finite = all(np.isfinite(value) for value in record.values())
    if not finite or not all(np.isfinite(w).all() for w in generator.get_weights()):
        raise RecbalError(
            f"The GAN diverged by step {record['step']}: its loss is no finite number. Try a "
            "smaller learning_rate; no row was made."
        )
