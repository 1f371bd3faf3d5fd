"""One network in five formats gives one answer; the client meets the server's refusals."""

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from recbal_utils import client, drift, export, formats
from recbal_utils.errors import RecbalError
from recbal_utils.models import NetworkClassifier, preprocessing

NAMES = ("trips", "spend", "on_display")
SHIFT = float(np.log(0.1))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).exponential(5, size=(600, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def estimator(rows):
    import keras

    y = (rows[:, 0] > 5).astype(int)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network = NetworkClassifier((8, 4), epochs=3, batch_size=64, loss=loss, logits=True)
    return make_pipeline(preprocessing(), network).fit(rows, y)


@pytest.fixture(scope="module")
def folder(estimator, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    reference = drift.Reference.learn(rows, NAMES)
    export.save_model(
        folder / "model.npz", estimator, NAMES, log_odds_shift=SHIFT, reference=reference
    )
    assert formats.save_forms(estimator[-1].model_, folder) == {}
    formats.save_rows(folder, rows, estimator.predict_proba(rows)[:, 1])
    return folder


@pytest.mark.parametrize("engine", formats.ENGINES)
def test_every_format_gives_the_corrected_answer(engine, folder, estimator, rows):
    model = formats.load(engine, folder)
    p = estimator.predict_proba(rows)[:, 1]
    expected = np.log(p) - np.log1p(-p) + SHIFT
    for n in (600, 1, 7):  # another number of rows each time
        np.testing.assert_allclose(model.log_odds(rows[:n]), expected[:n], rtol=0, atol=1e-5)
    assert model.feature_names == NAMES
    assert model.model_version == export.load_model(folder / "model.npz").model_version


def test_a_fresh_process_is_measured(folder):
    found = formats.measure_apart(["numpy", "onnx"], folder, sizes=(1, 50))
    assert list(found.index) == ["numpy", "onnx"]
    assert (found["largest error"] < 1e-6).all()
    assert (found[["kB", "MB", "ms, 1 rows", "ms, 50 rows"]] > 0).all(axis=None)


def test_a_wrong_network_shows_in_the_error(folder, rows, tmp_path):
    for name in ("model.npz", "model.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    formats.save_rows(tmp_path, rows, np.full(len(rows), 0.5))
    assert formats.measure("onnx", tmp_path, sizes=(1,))["largest error"] > 0.1


def test_onnx_needs_no_tensorflow(folder):
    code = (
        "import sys\nfrom recbal_utils import formats\n"
        "formats.load('onnx', sys.argv[1]).log_odds([[1, 1, 1]])\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_loaded_is_told_in_one_line(folder, tmp_path):
    with pytest.raises(RecbalError, match="choose one of numpy, onnx"):
        formats.load("pickle", folder)
    with pytest.raises(RecbalError, match=r"no model\.onnx in .*: call save_forms"):
        formats.load("onnx", tmp_path)
    with pytest.raises(RecbalError, match=r"onnx could not be measured: .*call save_forms"):
        formats.measure_apart(["onnx"], tmp_path)


def test_a_format_that_cannot_be_written_does_not_stop_the_others(estimator, tmp_path, monkeypatch):
    def broken(model, folder):
        raise OSError("no space\nleft")

    monkeypatch.setattr(formats, "_write_onnx", broken)
    failed = formats.save_forms(estimator[-1].model_, tmp_path)
    assert failed == {"onnx": "OSError: no space"}
    assert (tmp_path / "model.tflite").exists()


# --- the client -----------------------------------------------------------------------------


def test_a_request_holds_plain_values():
    body = client.request(7, [np.int64(1), 2], np.float32([[1, 2, 3], [4, 5, 6]]), NAMES)
    plain = json.loads(json.dumps(body))
    assert plain["visit"] == "7"
    assert plain["candidates"] == ["1", "2"]
    assert plain["features"] == {"trips": [1, 4], "spend": [2, 5], "on_display": [3, 6]}


def test_the_client_asks_and_stops_a_server(folder, rows):
    model = export.load_model(folder / "model.npz")
    with client.Service(folder / "model.npz") as service:
        answer = service.score("v", range(5), rows[:5], NAMES)
        np.testing.assert_allclose(answer["probabilities"], model.probabilities(rows[:5]))
        with pytest.raises(RecbalError, match=r"answered 422: .*spend is missing"):
            service.score("v", [1], [[1]], ["trips"])
        assert "recbal_requests_total" in service.ask("GET", "/metrics")[1]
        taken = str(service.port)
        with pytest.raises(RecbalError, match=r"did not start: .*Address already in use"):
            client.Service(folder / "model.npz", "--port", taken)
        assert service.ask("GET", "/health")[0] == 200
    assert service.process.returncode == 0
    assert service.lines()[-1]["event"] == "stopped"
    with pytest.raises(RecbalError, match=r"did not start: .*Cannot read the model"):
        client.Service(folder / "none.npz")
