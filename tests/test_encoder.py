"""The text encoder: against a forward pass written out in NumPy, its cache, and its errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf, softmax

from recbal_utils import encoder
from recbal_utils.errors import RecbalError

TEXTS = ["grocery, coffee, ground coffee, national, 12 oz", "instant coffee", "motor oil"]


def read_tensors(path):
    """All tensors of a safetensors file, by its published layout."""
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, about in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__" and about["dtype"] == "F32":
            start, end = (8 + length + offset for offset in about["data_offsets"])
            tensors[name] = np.frombuffer(raw[start:end], np.float32).reshape(about["shape"])
    return tensors


def layer_norm(x, tensors, name):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def gelu_by_tanh(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def bert(ids, tensors, ramp, heads=12):
    """Token vectors of one text, as in Devlin et al. (2019)."""
    x = sum(
        tensors[f"embeddings.{kind}_embeddings.weight"][rows]
        for kind, rows in {
            "word": ids,
            "position": np.arange(len(ids)),
            "token_type": np.zeros(len(ids), int),
        }.items()
    )
    x = layer_norm(x.astype(np.float64), tensors, "embeddings.LayerNorm")
    for number in range(6):
        at = f"encoder.layer.{number}"
        q, k, v = (
            linear(x, tensors, f"{at}.attention.self.{part}")
            .reshape(len(ids), heads, -1)
            .swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        share = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]), axis=-1)
        seen = (share @ v).swapaxes(0, 1).reshape(len(ids), -1)
        seen = linear(seen, tensors, f"{at}.attention.output.dense")
        x = layer_norm(x + seen, tensors, f"{at}.attention.output.LayerNorm")
        inner = linear(x, tensors, f"{at}.intermediate.dense")
        x = layer_norm(
            x + linear(ramp(inner), tensors, f"{at}.output.dense"),
            tensors,
            f"{at}.output.LayerNorm",
        )
    return x


@pytest.fixture(scope="module")
def vectors():
    return encoder.encode(TEXTS)


def test_equals_a_forward_pass_in_numpy(vectors):
    tokenizers = pytest.importorskip("tokenizers")
    folder = encoder.find_model()
    ids = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids.no_padding()
    tensors = read_tensors(folder / "model.safetensors")
    for text, found in zip(TEXTS[:2], vectors, strict=False):
        for ramp, apart in {gelu_by_tanh: 2e-6, gelu: 1e-3}.items():  # Keras Hub takes the former
            mean = bert(np.array(ids.encode(text).ids), tensors, ramp).mean(axis=0)
            np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=apart)


def test_like_is_near_like(vectors):
    ground, instant, oil = vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert ground @ instant > 0.5 > 0.3 > ground @ oil


def test_cache_holds_distinct_texts_in_any_order(vectors, tmp_path, monkeypatch, capsys):
    calls = []

    def encoded(texts, folder, progress):
        calls.append(list(texts))
        return vectors[[sorted(TEXTS).index(text) for text in texts]]

    monkeypatch.setenv("RECBAL_CACHE", str(tmp_path))
    monkeypatch.setattr(encoder, "encode", encoded)
    first = encoder.embeddings([*TEXTS, TEXTS[0]])
    again = encoder.embeddings(TEXTS[::-1])
    assert calls == [sorted(TEXTS)]
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first[0], first[3])
    np.testing.assert_array_equal(first[:3], again[::-1])
    encoder.embeddings([*TEXTS, "tea"][:2])
    assert len(calls) == 2


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def stopped(texts, folder, progress):
        raise KeyboardInterrupt

    monkeypatch.setenv("RECBAL_CACHE", str(tmp_path))
    monkeypatch.setattr(encoder, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        encoder.embeddings(TEXTS)
    assert not list(tmp_path.iterdir())


def test_parameters_are_counted_in_the_file():
    tensors = read_tensors(encoder.find_model() / "model.safetensors")
    assert encoder.count_parameters() == sum(t.size for t in tensors.values()) == 22_713_216


def test_no_such_model(tmp_path):
    with pytest.raises(RecbalError, match=r"no encoder 'no_such_package'.*hf://"):
        encoder.find_model("no_such_package")
    (tmp_path / "config.json").touch()
    with pytest.raises(RecbalError, match=r"lacks model\.safetensors, tokenizer\.json"):
        encoder.find_model(tmp_path)


def test_hub_without_an_answer(monkeypatch):
    import huggingface_hub

    def offline(name, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(RecbalError, match=r"hf://someone/model \(no route to host\)"):
        encoder.find_model("hf://someone/model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_damaged_files(tmp_path, name):
    for source in encoder.FILES:
        (tmp_path / source).symlink_to(encoder.find_model() / source)
    (tmp_path / name).unlink()
    (tmp_path / name).write_text("{ half")
    with pytest.raises(RecbalError, match="cannot"):
        encoder.encode(TEXTS, tmp_path)


def test_damaged_weights(tmp_path):
    for source in encoder.FILES:
        (tmp_path / source).write_bytes(b"\xff" * 12)
    with pytest.raises(RecbalError, match="damaged"):
        encoder.count_parameters(tmp_path)


@pytest.mark.parametrize(
    ("texts", "said"), [("coffee", "one str"), ([], "empty"), (["a", None], r"texts\[1\] is None")]
)
def test_bad_texts(texts, said):
    with pytest.raises(RecbalError, match=said):
        encoder.encode(texts)
