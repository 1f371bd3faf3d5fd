"""Training of Keras models that is watched, stops early, and keeps the best weights."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from recbal_utils.errors import RecbalError


def fit(
    model,
    x,
    y=None,
    *,
    validate: Callable[[], float],
    epochs: int = 10,
    patience: int = 2,
    seed: int = 0,
    progress: bool = True,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Train a compiled model, judge it after each epoch, and leave it with its best weights.

    Parameters
    ----------
    model : keras.Model
        Compiled. Build it after `keras.utils.set_random_seed`, so that its first weights follow
        from the seed as well.
    x : arrays, or a dataset
        What `model.fit` takes: arrays, a dict of arrays, a `keras.utils.PyDataset` or a
        `tf.data.Dataset`. A dataset orders its own batches; arrays are shuffled.
    y : array, optional
        Only where `x` holds arrays.
    validate : callable
        `validate()` scores the model as it stands; larger is better.
    epochs : int, default 10
        At most.
    patience : int, default 2
        Epochs without a better score after which training stops.
    seed : int, default 0
        Of the order of rows, dropout and whatever else Keras draws while training.
    progress : bool, default True
        Print a line after each epoch.
    batch_size : int, optional
        Rows a batch, where `x` holds arrays.

    Returns
    -------
    pandas.DataFrame
        A row for each epoch, from 1: `loss` of training, `score`, `seconds` (of training,
        without judging), and `best`, true for the epoch whose weights the model now has.

    Raises
    ------
    RecbalError
        If `epochs` or `patience` is below 1, the model is not compiled, or the loss or the score
        is not finite; the model then has the best weights so far. The same holds after an
        interrupt.
    """
    import keras

    _check(model, epochs, patience)
    keras.utils.set_random_seed(int(seed))
    watch = _Watch(validate, epochs, patience, progress)
    try:
        model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=0,
            shuffle=y is not None,
            callbacks=[keras.callbacks.LambdaCallback(**watch.attached_to(model))],
        )
    finally:
        if watch.best_weights is not None:
            model.set_weights(watch.best_weights)
    return watch.frame()


class _Watch:
    """Scores after each epoch, remembers the best weights, and says when to stop."""

    def __init__(self, validate, epochs, patience, progress):
        self.validate, self.epochs = validate, epochs
        self.patience, self.progress = patience, progress
        self.rows, self.best_weights, self.best_epoch = [], None, 0

    def attached_to(self, model):
        def begin(epoch, logs=None):
            self.started = time.perf_counter()

        def end(epoch, logs=None):
            self.judge(model, epoch + 1, float(logs["loss"]))

        return {"on_epoch_begin": begin, "on_epoch_end": end}

    def judge(self, model, epoch, loss):
        seconds = time.perf_counter() - self.started
        if not np.isfinite(loss):
            raise RecbalError(f"The loss of epoch {epoch} is not finite: lower the learning rate.")
        score = float(self.validate())
        if not np.isfinite(score):
            raise RecbalError(f"validate() gave {score} after epoch {epoch}: it must be finite.")
        self.rows.append({"loss": loss, "score": score, "seconds": seconds})
        if score > self.best_score():
            self.best_epoch, self.best_weights = epoch, model.get_weights()
        if self.progress:
            self.say(epoch, loss, score, seconds)
        model.stop_training = epoch - self.best_epoch >= self.patience

    def best_score(self):
        return self.rows[self.best_epoch - 1]["score"] if self.best_epoch else -np.inf

    def say(self, epoch, loss, score, seconds):
        mark = ", the best so far" if epoch == self.best_epoch else ""
        print(
            f"epoch {epoch} of {self.epochs}: loss {loss:.4f}, score {score:.4f}{mark} "
            f"({seconds:.0f} s)",
            flush=True,
        )

    def frame(self):
        index = pd.RangeIndex(1, len(self.rows) + 1, name="epoch")
        frame = pd.DataFrame(self.rows, index=index)
        return frame.assign(best=frame.index == self.best_epoch)


def _check(model, epochs, patience):
    for name, value in {"epochs": epochs, "patience": patience}.items():
        if int(value) != value or value < 1:
            raise RecbalError(f"{name} is {value!r}; give a whole number, 1 or more.")
    if not getattr(model, "compiled", False):
        raise RecbalError("The model is not compiled: call model.compile(optimizer, loss) first.")
