"""One network in five file formats: written, loaded, and measured alike.

The network of a saved model can leave Keras as a SavedModel, as ONNX, as LiteRT, or as the arrays
of `export.save_model`. `save_forms` writes them all, `load` gives each the same face, and `measure`
tells what each costs in a process of its own: ``python -m recbal_utils.formats onnx folder``.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from recbal_utils.errors import RecbalError
from recbal_utils.export import load_model

SIZES = (100, 500)
MOST_CALLS = 200
MOST_SECONDS = 0.5  # of processor time for the calls of one size
FILES = {
    "numpy": "model.npz",
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "savedmodel": "savedmodel",
    "compiled": "model.keras",
    "predict": "model.keras",
}
ENGINES = tuple(FILES)


def save_forms(model, folder):
    """Write a Keras model in every format, beside the `model.npz` that `save_model` wrote.

    Parameters
    ----------
    model : keras.Model
        Called at least once, such as after fit.
    folder : str or Path
        An existing folder; files of the names in `FILES` are replaced.

    Returns
    -------
    dict of str to str
        Formats that could not be written, and why; empty if all could.
    """
    folder = Path(folder)
    writers = {
        "compiled": lambda model, folder: model.save(folder / FILES["compiled"]),
        "savedmodel": lambda model, folder: model.export(folder / FILES["savedmodel"]),
        "onnx": _write_onnx,
        "litert": _write_litert,
    }
    failed = {}
    for engine, write in writers.items():
        try:
            with _quiet():
                write(model, folder)
        except Exception as error:  # a converter's errors are of any kind
            failed[engine] = f"{type(error).__name__}: {error}".splitlines()[0]
    return failed


def save_rows(folder, X, p):
    """Keep rows X and their probabilities p by the estimator, before the correction."""
    np.savez(Path(folder) / "rows.npz", X=np.asarray(X, np.float32), p=p)


def _write_onnx(model, folder):
    model.export(folder / FILES["onnx"], format="onnx", verbose=False)


def _write_litert(model, folder):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / FILES["savedmodel"]))
    (folder / FILES["litert"]).write_bytes(converter.convert())


@contextlib.contextmanager
def _quiet():
    """Converters greet on both streams; what they have to say comes as an exception."""
    logging.disable(logging.WARNING)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


# --- the same face --------------------------------------------------------------------------


@dataclasses.dataclass
class Engine:
    """A scoring model whose network runs in another library; its preprocessing stays.

    Attributes
    ----------
    model : export.ScoringModel
    network : callable
        From float32 rows of shape (n, d), preprocessed, to log-odds of shape (n, 1).
    """

    model: object
    network: object

    def __getattr__(self, name):
        return getattr(self.model, name)

    def log_odds(self, X):
        """Return corrected log-odds of X, shape (n, d): float64 of shape (n,)."""
        X = np.asarray(X, np.float32)
        for kind, *numbers in self.model.steps:
            X = np.log1p(X) if kind == "log1p" else (X - numbers[0]) / numbers[1]
        z = np.asarray(self.network(X))[:, 0].astype(np.float64)
        return z + self.model.log_odds_shift


def load(engine, folder):
    """Return the model in the format of `engine`: a ScoringModel, or an `Engine` like one.

    Raises
    ------
    RecbalError
        For an unknown engine, a missing file, or a package that is not installed.
    """
    folder = Path(folder)
    if engine not in FILES:
        raise RecbalError(f"engine is {engine!r}; choose one of {', '.join(FILES)}.")
    if not (folder / FILES[engine]).exists():
        raise RecbalError(f"There is no {FILES[engine]} in {folder.name}: call save_forms first.")
    model = load_model(folder / FILES["numpy"])
    if engine == "numpy":
        return model
    try:
        return Engine(model, _LOADERS[engine](folder / FILES[engine]))
    except ImportError as error:
        raise RecbalError(f"{engine} needs a package that is missing: {error.name}.") from None


def _compiled(path):
    import keras
    import tensorflow as tf

    model = keras.models.load_model(path, compile=False)
    signature = [tf.TensorSpec((None, model.input_shape[1]), tf.float32)]
    return tf.function(lambda X: model(X, training=False), input_signature=signature)


def _predict(path):
    import keras

    model = keras.models.load_model(path, compile=False)
    return lambda X: model.predict(X, verbose=0)


def _savedmodel(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda X: loaded.serve(tf.constant(X))


def _onnx(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return lambda X: session.run(None, {name: X})[0]


def _litert(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's copy names its successor at each start
        interpreter = _interpreter()(str(path), num_threads=1)
    entry = interpreter.get_input_details()[0]["index"]
    leave = interpreter.get_output_details()[0]["index"]
    shape = []

    def run(X):
        if shape != [X.shape]:
            shape[:] = [X.shape]
            interpreter.resize_tensor_input(entry, X.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry, X)
        interpreter.invoke()
        return interpreter.get_tensor(leave)

    return run


def _interpreter():
    """The small package ai-edge-litert where it is installed, else TensorFlow's own copy."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter


_LOADERS = {
    "compiled": _compiled,
    "predict": _predict,
    "savedmodel": _savedmodel,
    "onnx": _onnx,
    "litert": _litert,
}


# --- what each costs ------------------------------------------------------------------------


def measure(engine, folder, sizes=SIZES):
    """Load a format in this process and tell what that and its calls cost.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    folder : str or Path
        With the files of `save_forms` and `save_rows`.
    sizes : sequence of int
        Rows of a call.

    Returns
    -------
    dict
        `kB` on disk, `s to load` (processor time, with imports), `MB` of memory, `largest error`
        in probability, and `ms, 100 rows` and the like (processor time of a call).
    """
    start = time.process_time()
    model = load(engine, folder)
    seconds = time.process_time() - start
    rows = np.load(Path(folder) / "rows.npz")
    with np.errstate(over="ignore"):
        scored = 1 / (1 + np.exp(model.log_odds_shift - model.log_odds(rows["X"])))
    return {
        "kB": _bytes(Path(folder) / FILES[engine]) / 1024,
        "s to load": seconds,
        "MB": _memory_mb(),
        "largest error": float(np.abs(scored - rows["p"]).max()),
    } | {f"ms, {n} rows": 1000 * call_seconds(model, rows["X"][:n]) for n in sizes}


def measure_apart(engines, folder, sizes=SIZES):
    """Return what `measure` tells of some formats, one after another in one fresh process.

    Parameters
    ----------
    engines : sequence of str
        The time to load the second is without what it shares with the first.
    folder, sizes
        As for `measure`.

    Returns
    -------
    pandas.DataFrame
        A row for each engine.

    Raises
    ------
    RecbalError
        If a format cannot be loaded there.
    """
    import pandas as pd

    command = [sys.executable, "-m", "recbal_utils.formats", ",".join(engines), str(folder)]
    done = subprocess.run([*command, *map(str, sizes)], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        raise RecbalError(f"{', '.join(engines)} could not be measured: {lines[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return pd.DataFrame.from_dict(found, orient="index")


def call_seconds(model, X):
    """Median processor time of one call, which other work on the machine leaves alone."""
    times = []
    while len(times) < MOST_CALLS and sum(times) < MOST_SECONDS:
        start = time.process_time()
        model.log_odds(X)
        times.append(time.process_time() - start)
    return float(np.median(times[len(times) // 10 :]))


def _bytes(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _memory_mb():
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def main(arguments=None):
    """Measure formats and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m recbal_utils.formats", description=__doc__)
    parser.add_argument("engines", help="one or more of " + ", ".join(ENGINES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=int, nargs="*", default=list(SIZES))
    given = parser.parse_args(arguments)
    try:
        found = {e: measure(e, given.folder, given.sizes) for e in given.engines.split(",")}
        print(json.dumps(found))
    except RecbalError as error:
        print(f"recbal_utils.formats: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
