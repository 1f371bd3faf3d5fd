"""A trained model as one file: preprocessing, network, prior correction, names and versions.

`save_model` takes the fitted estimators of the book apart into arrays and writes them down.
`load_model` needs NumPy and SciPy only: no TensorFlow, no scikit-learn, and no pickle, so that a
file can carry numbers but never code.
"""

import hashlib
import json
import platform
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from scipy.special import expit

from recbal_utils._atomic import replacing
from recbal_utils.drift import Reference
from recbal_utils.errors import RecbalError

FORMAT = 1
PARTS_AGREE = 1e-6  # between the file's probabilities and the estimator's
CHUNK_ROWS = 4_096  # small enough to stay in a processor's cache
LIBRARIES = ("numpy", "scikit-learn", "keras", "tensorflow")
_ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "linear": lambda z: z, "tanh": np.tanh}


@dataclass(frozen=True)
class ScoringModel:
    """What `load_model` returns: scores rows, and knows what it is.

    Attributes
    ----------
    feature_names : tuple of str
        Columns of X, in order.
    model_version, features_version : str
        Fingerprints of everything that decides a score, and of the features it needs.
    log_odds_shift : float
        The prior correction that is part of the model, in nats; ln(keep_rate) after
        down-sampling negatives.
    prior : float or None
        Share of positives where the probabilities are right.
    reference : drift.Reference or None
        How the features were distributed in training.
    libraries : dict
        Versions at the time of saving.
    steps, layers
        The arithmetic: preprocessing steps, then dense layers of (kernel, bias, activation).
    """

    feature_names: tuple
    model_version: str
    features_version: str
    log_odds_shift: float
    prior: float | None
    reference: Reference | None
    libraries: dict
    steps: tuple
    layers: tuple

    def log_odds(self, X):
        """Return corrected log-odds of a conversion.

        Parameters
        ----------
        X : array-like of shape (n, len(feature_names))
            Finite numbers; above -1 where the preprocessing takes logarithms.

        Returns
        -------
        ndarray of shape (n,), float64
            In nats, finite.

        Raises
        ------
        RecbalError
            For another shape, or a value no score can be computed from, named by row and feature.
        """
        X = _checked_rows(X, self)
        parts = [_forward(X[i : i + CHUNK_ROWS], self) for i in range(0, len(X), CHUNK_ROWS)]
        z = np.concatenate([np.empty(0), *parts])
        if not np.isfinite(z).all():
            row = int(np.argmin(np.isfinite(z)))
            raise RecbalError(f"Row {row} has values too large to score: check its features.")
        return z + self.log_odds_shift

    def probabilities(self, X):
        """Return the probability of a conversion for each row of X, float64 of shape (n,)."""
        return expit(self.log_odds(X))


def save_model(
    path,
    estimator,
    feature_names,
    *,
    log_odds_shift=0.0,
    prior=None,
    reference=None,
    features_version=None,
    rows=None,
):
    """Write a fitted model into one file, whole or not at all, after a check that it agrees.

    Parameters
    ----------
    path : str or Path
        Such as "model.npz". An older file of this name is replaced.
    estimator : estimator
        A fitted `models.NetworkClassifier`; a scikit-learn Pipeline that ends in one after
        `models.preprocessing()` or a StandardScaler; or a `calibrate.PriorCorrectedClassifier`
        around either.
    feature_names : sequence of str
        Name of each column, in the order of training.
    log_odds_shift : float, default 0
        Added to the log-odds, beside what a PriorCorrectedClassifier adds: np.log(keep_rate)
        after training on all positives and a share of the negatives.
    prior : float in (0, 1), optional
        Share of positives where the corrected probabilities are right. Monitors start from it.
    reference : drift.Reference, optional
        Features as they were in training, for monitors.
    features_version : str, optional
        Name of the code that computes the features; by default a fingerprint of their names.
    rows : array-like of shape (n, d), optional
        Rows to compare the file with the estimator on; made-up ones by default.

    Returns
    -------
    str
        The model's version: the same model gives the same one.

    Raises
    ------
    RecbalError
        If the estimator is of another kind, its parts do not fit the names, the file would not
        agree with it to 1e-6, or the file cannot be written.

    Notes
    -----
    The file keeps log-odds in float64. A network that ends in a sigmoid rounds its probabilities
    to float32 first, which near 1 loses what the correction needs: after a strong correction
    such rows differ from the estimator by some 1e-6. A network trained with `logits=True` has no
    such loss, and agrees to 1e-6 after the correction, too.
    """
    inner, steps, layers, shift = _taken_apart(estimator)
    names = _checked_names(feature_names, layers[0][0].shape[0])
    manifest = {
        "format": FORMAT,
        "feature_names": names,
        "features_version": features_version or _digest(*names),
        "log_odds_shift": _finite(log_odds_shift + shift, "log_odds_shift"),
        "prior": _share(prior),
        "steps": [kind for kind, *_ in steps],
        "activations": [activation for *_, activation in layers],
        "reference": reference.to_json(names) if reference else None,
        "libraries": _libraries(),
    }
    arrays = _arrays(steps, layers)
    model = _model(manifest, arrays)
    _check_agreement(model, inner, rows)
    _write(Path(path), manifest | {"model_version": model.model_version}, arrays)
    return model.model_version


def load_model(path):
    """Read a model that `save_model` wrote.

    Returns
    -------
    ScoringModel

    Raises
    ------
    RecbalError
        If the file is missing, damaged, changed after it was saved, or of another format.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        manifest = json.loads(arrays.pop("manifest").tobytes())
        if manifest["format"] != FORMAT:
            raise RecbalError(
                f"{path.name} has format {manifest['format']}, and this version reads {FORMAT}: "
                "save the model again."
            )
        model = _model(manifest, arrays)
    except OSError as error:
        reason = error.strerror or "it is no file of arrays"
        raise RecbalError(f"Cannot read the model {path.name}: {reason}.") from None
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        if isinstance(error, RecbalError):
            raise
        raise RecbalError(
            f"{path.name} is not a whole model file: save the model again, or copy it anew."
        ) from None
    if model.model_version != manifest["model_version"]:
        raise RecbalError(f"{path.name} was changed after it was saved: save the model again.")
    return model


# --- the arithmetic -------------------------------------------------------------------------


def _forward(X, model):
    """In float32 as in training; what overflows ends as a score that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        for kind, *numbers in model.steps:
            X = np.log1p(X) if kind == "log1p" else (X - numbers[0]) / numbers[1]
        for kernel, bias, activation in model.layers[:-1]:
            X = _ACTIVATIONS[activation](X @ kernel + bias)
        kernel, bias, _ = model.layers[-1]
        return (X @ kernel + bias)[:, 0].astype(np.float64)


def _checked_rows(X, model):
    """Return X in float32; rows that are float32 already are looked at where they are."""
    names = model.feature_names
    try:
        rows = np.asarray(X)
        rows = rows if rows.dtype == np.float32 else rows.astype(np.float64)
    except (TypeError, ValueError):
        raise RecbalError("X must hold numbers, a row for each candidate.") from None
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise RecbalError(f"X has shape {rows.shape}; the model needs {len(names)} columns.")
    logged = bool(model.steps) and model.steps[0][0] == "log1p"
    wrong, why = ~(np.abs(rows) <= np.finfo(np.float32).max), "is not a finite number of float32"
    if not wrong.any() and logged:
        wrong, why = rows <= -1, "must be above -1, for its logarithm is taken"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise RecbalError(f"Feature {names[column]} of row {row} {why}.")
    if logged and rows.dtype != np.float32:  # rounding may lead to -1
        return np.maximum(rows.astype(np.float32), np.nextafter(np.float32(-1), np.float32(0)))
    return rows.astype(np.float32, copy=False)


# --- taking an estimator apart --------------------------------------------------------------


def _taken_apart(estimator):
    """Return the uncorrected estimator, its steps, its layers, and the correction."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    from recbal_utils.calibrate import PriorCorrectedClassifier

    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):
        raise RecbalError(
            f"{type(estimator).__name__} is not a fitted estimator: call fit before saving it."
        ) from None
    if isinstance(estimator, PriorCorrectedClassifier):
        inner, steps, layers, shift = _taken_apart(estimator.estimator_)
        return inner, steps, layers, shift + float(np.log(estimator.keep_rate))
    *transformers, network = _leaves(estimator)
    steps = [step for transformer in transformers for step in _steps(transformer)]
    return estimator, steps, _layers(network), 0.0


def _leaves(estimator):
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline

    if isinstance(estimator, FrozenEstimator):
        return _leaves(estimator.estimator)
    if not isinstance(estimator, Pipeline):
        return [estimator]
    named = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    return [leaf for step in named for leaf in _leaves(step)]


def _steps(transformer):
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from recbal_utils import models

    if isinstance(transformer, FunctionTransformer) and transformer.func in (
        models._log1p,
        np.log1p,
    ):
        return [("log1p",)]
    if isinstance(transformer, StandardScaler):
        zeros = np.zeros(transformer.n_features_in_)
        mean = transformer.mean_ if transformer.with_mean else zeros
        scale = transformer.scale_ if transformer.with_std else zeros + 1
        return [("standardise", mean.astype(np.float32), scale.astype(np.float32))]
    raise _refusal(transformer)


def _layers(network):
    from recbal_utils.models import NetworkClassifier

    if not isinstance(network, NetworkClassifier):
        raise _refusal(network)
    layers = []
    for layer in network.model_.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        activation = getattr(getattr(layer, "activation", None), "__name__", None)
        if type(layer).__name__ != "Dense" or layer.bias is None:
            raise _refusal(layer)
        layers.append((layer.kernel.numpy(), layer.bias.numpy(), activation))
    last = "linear" if network.logits else "sigmoid"
    hidden_known = all(activation in _ACTIVATIONS for *_, activation in layers[:-1])
    if not hidden_known or layers[-1][2] != last or layers[-1][0].shape[1] != 1:
        raise _refusal(network.model_)
    return layers


def _refusal(part):
    return RecbalError(
        f"{type(part).__name__} has no export: save a NetworkClassifier, alone or in a Pipeline "
        "after preprocessing() or StandardScaler(), with or without PriorCorrectedClassifier."
    )


# --- the file -------------------------------------------------------------------------------


def _arrays(steps, layers):
    arrays = {}
    for i, (kind, *numbers) in enumerate(steps):
        if kind == "standardise":
            arrays |= {f"step{i}_mean": numbers[0], f"step{i}_scale": numbers[1]}
    for i, (kernel, bias, _) in enumerate(layers):
        arrays |= {f"layer{i}_kernel": kernel, f"layer{i}_bias": bias}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _model(manifest, arrays):
    names = tuple(manifest["feature_names"])
    steps = tuple(
        (kind, arrays[f"step{i}_mean"], arrays[f"step{i}_scale"])
        if kind == "standardise"
        else (kind,)
        for i, kind in enumerate(manifest["steps"])
    )
    layers = tuple(
        (arrays[f"layer{i}_kernel"], arrays[f"layer{i}_bias"], activation)
        for i, activation in enumerate(manifest["activations"])
    )
    _check_shapes(len(names), steps, layers)
    reference = manifest["reference"]
    return ScoringModel(
        names,
        _version(manifest, arrays),
        manifest["features_version"],
        manifest["log_odds_shift"],
        manifest["prior"],
        Reference.from_json(reference) if reference else None,
        manifest["libraries"],
        steps,
        layers,
    )


def _check_shapes(width, steps, layers):
    fits = all(array.shape == (width,) for _, *numbers in steps for array in numbers)
    for kernel, bias, _ in layers:
        fits = fits and kernel.shape == (width, len(bias))
        width = len(bias)
    if not fits or width != 1:
        raise RecbalError(
            "The names, the preprocessing and the network differ in their number of columns: "
            "pass the feature names the estimator was trained on."
        )


def _version(manifest, arrays):
    decides = {
        key: value
        for key, value in manifest.items()
        if key not in {"libraries", "model_version", "reference"}
    }
    parts = [json.dumps(decides, sort_keys=True)]
    for name in sorted(arrays):
        parts += [name, str(arrays[name].dtype), str(arrays[name].shape), arrays[name].tobytes()]
    return _digest(*parts)


def _digest(*parts):
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def _check_agreement(model, estimator, rows):
    if rows is None:
        shape = (256, len(model.feature_names))
        rows = np.random.default_rng(0).exponential(10, size=shape)
    expected = np.asarray(estimator.predict_proba(np.asarray(rows, np.float32)))[:, 1]
    uncorrected = expit(model.log_odds(rows) - model.log_odds_shift)
    error = np.abs(uncorrected - expected).max()
    if not error <= PARTS_AGREE:
        raise RecbalError(
            f"The exported model differs from the estimator by {error:.1e} in probability, above "
            f"{PARTS_AGREE:g}: its preprocessing or network was changed after training."
        )


def _write(path, manifest, arrays):
    text = np.frombuffer(json.dumps(manifest, sort_keys=True).encode(), np.uint8)
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, manifest=text, **arrays)
    except OSError as error:
        raise RecbalError(f"Cannot write the model {path.name}: {error.strerror}.") from None


def _checked_names(feature_names, width):
    names = [feature_names] if isinstance(feature_names, str) else list(feature_names)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise RecbalError("feature_names must be different texts, one for each column.")
    if len(names) != width:
        raise RecbalError(
            f"feature_names has {len(names)} names, and the model was trained on {width} columns: "
            "pass the names of those columns, in their order."
        )
    return names


def _finite(value, name):
    number = float(value)
    if not np.isfinite(number):
        raise RecbalError(f"{name} must be finite; it is {value!r}.")
    return number


def _share(prior):
    if prior is None:
        return None
    if not 0 < prior < 1:
        raise RecbalError(f"prior must lie in (0, 1); it is {prior!r}. It is a share of rows.")
    return float(prior)


def _libraries():
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
