"""A saved model equals its estimator; the server, over real HTTP, answers well and stays well."""

import concurrent.futures
import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from recbal_utils import _serving, calibrate, drift, export, monitor, serve
from recbal_utils.errors import RecbalError
from recbal_utils.models import NetworkClassifier, preprocessing

NAMES = ("trips", "spend", "on_display")
KEEP_RATE = 0.1
FAST = {"epochs": 2, "batch_size": 256, "learning_rate": 0.02}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.exponential(5, size=(2000, 3)).astype(np.float32)
    X[:, 2] = X[:, 2] > 5
    y = rng.random(2000) < 1 / (1 + np.exp(2 - 0.3 * X[:, 0]))
    return X, y.astype(int)


@pytest.fixture(scope="module")
def estimator(data):
    import keras

    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network = NetworkClassifier((8,), loss=loss, logits=True, **FAST)
    pipeline = make_pipeline(preprocessing(), network)
    return calibrate.PriorCorrectedClassifier(pipeline, KEEP_RATE).fit(*data)


@pytest.fixture(scope="module")
def path(estimator, data, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "model.npz"
    reference = drift.Reference.learn(data[0], NAMES)
    export.save_model(file, estimator, NAMES, prior=0.05, reference=reference)
    return file


@pytest.fixture(scope="module")
def model(path):
    return export.load_model(path)


# --- the file -------------------------------------------------------------------------------


def _networks():
    yield "one layer", lambda: make_pipeline(preprocessing(), NetworkClassifier((8,), **FAST))
    yield "no layer", lambda: make_pipeline(StandardScaler(), NetworkClassifier((), **FAST))
    yield "alone", lambda: NetworkClassifier((4, 3), **FAST)
    yield (
        "nested and frozen",
        lambda: make_pipeline(
            "passthrough", make_pipeline(preprocessing(), NetworkClassifier((4,), **FAST))
        ),
    )


@pytest.mark.parametrize(("name", "make"), list(_networks()), ids=lambda x: str(x)[:12])
def test_the_file_equals_the_estimator(name, make, data, tmp_path):
    X, y = data
    fitted = make().fit(X, y)
    saved = FrozenEstimator(fitted) if "frozen" in name else fitted
    export.save_model(tmp_path / "m.npz", saved, NAMES)
    loaded = export.load_model(tmp_path / "m.npz")
    fresh = np.random.default_rng(1).exponential(20, size=(500, 3))
    difference = loaded.probabilities(fresh) - fitted.predict_proba(fresh.astype(np.float32))[:, 1]
    assert np.abs(difference).max() < 1e-6
    assert np.ptp(loaded.probabilities(fresh)) > 0.05


def test_the_correction_is_part_of_the_file(estimator, data, tmp_path, model):
    X, _ = data
    np.testing.assert_allclose(
        model.probabilities(X), estimator.predict_proba(X)[:, 1], rtol=0, atol=1e-6
    )
    assert model.log_odds_shift == pytest.approx(np.log(KEEP_RATE))
    inner = estimator.estimator_
    version = export.save_model(tmp_path / "m.npz", inner, NAMES, log_odds_shift=np.log(KEEP_RATE))
    shifted = export.load_model(tmp_path / "m.npz")
    np.testing.assert_array_equal(shifted.probabilities(X), model.probabilities(X))
    plain = export.save_model(tmp_path / "n.npz", inner, NAMES)
    assert version != plain


def test_a_fresh_process_scores_without_training_code(path, data, estimator):
    code = (
        "import json, sys\nfrom recbal_utils.export import load_model\n"
        "model = load_model(sys.argv[1])\nrows = json.load(sys.stdin)\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'pandas', 'duckdb'} & set(sys.modules)\n"
        "print(json.dumps([model.probabilities(rows).tolist(), sorted(heavy)]))"
    )
    rows = data[0][:50]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        input=json.dumps(rows.tolist()),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    p, heavy = json.loads(done.stdout)
    assert heavy == []
    np.testing.assert_allclose(p, estimator.predict_proba(rows)[:, 1], rtol=0, atol=1e-6)


def test_versions_follow_the_content(estimator, path, model, tmp_path):
    again = tmp_path / "again.npz"
    reference = model.reference
    assert export.save_model(again, estimator, NAMES, prior=0.05, reference=reference) == (
        model.model_version
    )
    assert again.read_bytes() == path.read_bytes()
    other = export.save_model(again, estimator, NAMES[::-1], prior=0.05)
    assert other != model.model_version
    assert export.load_model(again).features_version != model.features_version
    assert model.libraries["keras"]
    assert model.prior == 0.05


def test_what_cannot_be_exported_is_refused(data, tmp_path):
    X, y = data
    file = tmp_path / "m.npz"
    unfitted = make_pipeline(preprocessing(), NetworkClassifier())
    network = make_pipeline(PCA(2), NetworkClassifier((), **FAST)).fit(X, y)
    changed = make_pipeline(StandardScaler(), NetworkClassifier((), **FAST)).fit(X, y)
    changed[0].with_mean = False
    changed[0].__class__ = type("StandardScaler", (StandardScaler,), {"transform": lambda s, X: X})
    for estimator, message in (
        (LogisticRegression().fit(X, y), "LogisticRegression has no export: save a Network"),
        (network, "PCA has no export"),
        (unfitted, "not a fitted estimator"),
        ("a model", "not a fitted estimator"),
        (changed, "differs from the estimator"),
    ):
        with pytest.raises(RecbalError, match=message):
            export.save_model(file, estimator, NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_names": NAMES[:2]}, "has 2 names, and the model was trained on 3"),
        ({"feature_names": ("a", "a", "b")}, "different texts"),
        ({"prior": 1.5}, r"prior must lie in \(0, 1\)"),
        ({"log_odds_shift": np.inf}, "log_odds_shift must be finite"),
    ],
)
def test_settings_of_the_file_are_checked(estimator, tmp_path, options, message):
    with pytest.raises(RecbalError, match=message):
        export.save_model(tmp_path / "m.npz", estimator, **({"feature_names": NAMES} | options))


def test_damaged_files_are_refused(path, tmp_path, estimator):
    whole = path.read_bytes()
    middle = len(whole) // 2
    broken = {
        "cut": whole[:middle],
        "text": b"not a model",
        "empty": b"",
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }
    for name, content in broken.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(RecbalError, match=name):
            export.load_model(file)
    with pytest.raises(RecbalError, match="Cannot read the model none"):
        export.load_model(tmp_path / "none")
    np.savez(tmp_path / "pickle.npz", manifest=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RecbalError, match="not a whole model"):
        export.load_model(tmp_path / "pickle.npz")
    with pytest.raises(RecbalError, match="Cannot write"):
        export.save_model(tmp_path / "cut" / "m.npz", estimator, NAMES)


def test_a_changed_number_is_noticed(path, tmp_path):
    with np.load(path) as file:
        arrays = dict(file)
    arrays["layer0_bias"] = arrays["layer0_bias"] + np.float32(1e-3)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(RecbalError, match="changed after it was saved"):
        export.load_model(tmp_path / "m.npz")


def test_rows_that_cannot_be_scored(model):
    good = np.ones((2, 3))
    for rows, message in (
        (np.ones((2, 4)), r"shape \(2, 4\); the model needs 3 columns"),
        (np.array([[1, 1, 1], [1, np.nan, 1]]), "Feature spend of row 1 is not a finite"),
        (good * 1e300, "Feature trips of row 0 is not a finite number of float32"),
        (good * -1, "must be above -1"),
        ([["a", "b", "c"]], "must hold numbers"),
    ):
        with pytest.raises(RecbalError, match=message):
            model.log_odds(rows)
    assert model.log_odds(np.empty((0, 3))).shape == (0,)
    assert np.isfinite(model.log_odds(np.full((1, 3), np.nextafter(-1.0, 0)))).all()


# --- the server -----------------------------------------------------------------------------


class Running:
    """A server in a process of its own, on a free port."""

    def __init__(self, path, log, *options):
        command = [sys.executable, "-m", "recbal_utils.serve", str(path), "--port", "0", *options]
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr)
        self.port = self._line("listening")["port"]

    def _line(self, event):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = [line for line in self.lines() if line["event"] == event]
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def lines(self):
        text = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in text.splitlines()]

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, method, route, body=None, headers=JSON):
        connection = self.connect()
        try:
            connection.request(method, route, body, headers)
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()

    def score(self, rows, **changes):
        status, body, _ = self.ask("POST", "/score", json.dumps(request(rows) | changes))
        return status, json.loads(body)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def request(rows, names=NAMES):
    rows = np.asarray(rows, dtype=np.float64)
    return {
        "visit": "v-secret",
        "candidates": [f"p{i}" for i in range(len(rows))],
        "features": dict(zip(names, rows.T.tolist(), strict=True)),
    }


OPTIONS = (
    *("--max-candidates", "600", "--max-bytes", "200000", "--max-waiting", "20"),
    *("--head-seconds", "1", "--body-seconds", "1.5"),
)


@pytest.fixture(scope="module")
def correction(tmp_path_factory):
    return tmp_path_factory.mktemp("correction") / "correction.json"


@pytest.fixture(scope="module")
def server(path, correction, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    running = Running(path, log, *OPTIONS, "--correction-file", str(correction))
    yield running
    assert running.stop() == 0


@pytest.fixture
def well(server, data, estimator):
    """After the test the server still answers, and answers right."""
    yield
    status, answer = server.score(data[0][:7])
    assert status == 200
    expected = estimator.predict_proba(data[0][:7])[:, 1]
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-6)
    assert server.ask("GET", "/health")[0] == 200


def test_online_equals_offline(server, data, estimator, model, well):
    for n in (1, 2, 500):
        rows = data[0][:n]
        status, answer = server.score(rows)
        expected = estimator.predict_proba(rows)[:, 1]
        assert status == 200
        np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-6)
        best_first = np.argsort(-np.array(answer["probabilities"]), kind="stable")
        assert answer["ranking"] == [f"p{i}" for i in best_first]
        assert answer["visit"] == "v-secret"
        assert answer["model_version"] == model.model_version
        assert answer["features_version"] == model.features_version


def test_features_are_matched_by_name(server, data, well):
    rows = data[0][:20]
    asked = request(rows)
    asked["features"] = dict(reversed(asked["features"].items()))
    status, body, _ = server.ask("POST", "/score", json.dumps(asked))
    assert status == 200
    assert json.loads(body) == server.score(rows)[1]


def test_ties_keep_the_order_of_the_request(server, well):
    _, answer = server.score(np.ones((30, 3)))
    assert answer["ranking"] == [f"p{i}" for i in range(30)]


def test_health_tells_versions(server, model):
    status, body, headers = server.ask("GET", "/health")
    assert status == 200
    assert json.loads(body)["model_version"] == model.model_version
    assert len(headers["x-request-id"]) == 32


GOOD = request(np.ones((2, 3)))


def changed(**parts):
    return json.dumps(GOOD | parts)


def with_values(text):
    """A request whose first feature's values are this JSON text."""
    return json.dumps(GOOD).replace("[1.0, 1.0]", text, 1)


FAULTS = {
    "empty": ("", 422, "not valid JSON"),
    "text": ("hello", 422, "not valid JSON"),
    "cut short": (json.dumps(GOOD)[:-5], 422, "not valid JSON"),
    "bytes": (b"\xff\xfe\x00", 422, "not valid JSON"),
    "null": ("null", 422, "must be an object"),
    "list": ("[1]", 422, "must be an object"),
    "deep": ("[" * 90_000, 422, "not valid JSON"),
    "deep object": ('{"a":' * 20_000, 422, "not valid JSON"),
    "features a list": (changed(features=[1, 2]), 422, "must be an object"),
    "further key": (changed(admin=True), 422, "must be an object"),
    "renamed key": (json.dumps({**GOOD, "visits": 1} | {"visit": "v"}), 422, "must be an object"),
    "no visit": (json.dumps({k: v for k, v in GOOD.items() if k != "visit"}), 422, "visit: Field"),
    "visit a number": (changed(visit=7), 422, "visit: Input should be a valid string"),
    "long visit": (changed(visit="v" * 101), 422, "visit"),
    "no candidates": (changed(candidates=[]), 422, "1 to 600 are allowed"),
    "candidates a text": (changed(candidates="ab"), 422, "candidates: Input should be a valid"),
    "id twice": (changed(candidates=["a", "a"]), 422, "stands twice"),
    "id a number": (changed(candidates=["a", 2]), 422, "candidates.1"),
    "id a surrogate": (changed(candidates=["a", "\ud800"]), 422, "not valid JSON"),
    "feature missing": (changed(features={"trips": [1, 1]}), 422, "spend is missing"),
    "feature unknown": (
        changed(features=GOOD["features"] | {"label": [0, 1]}),
        422,
        "label is unknown",
    ),
    "feature short": (with_values("[1.0]"), 422, "1 values for 2 candidates"),
    "feature a number": (with_values("1.0"), 422, "features.trips: Input should be a valid list"),
    "nan": (with_values("[1.0, NaN]"), 422, "not valid JSON"),
    "infinity": (with_values("[1.0, -Infinity]"), 422, "not valid JSON"),
    "overflow": (with_values("[1.0, 1e999]"), 422, ""),
    "no float32": (with_values("[1.0, 1e300]"), 422, "trips of row 1 is not a finite number"),
    "huge integer": (with_values("[1.0, 1" + "0" * 4000 + "]"), 422, ""),
    "null value": (with_values("[1.0, null]"), 422, "features.trips.1"),
    "text value": (with_values('[1.0, "1"]'), 422, "features.trips.1"),
    "bool value": (with_values("[1.0, true]"), 422, "features.trips.1"),
    "nested value": (with_values("[1.0, [1.0]]"), 422, "features.trips.1"),
    "below the logarithm": (with_values("[1.0, -1.0]"), 422, "must be above -1"),
    "too many": (json.dumps(request(np.ones((601, 3)))), 422, "1 to 600 are allowed"),
    "many wrong values": (with_values("[" + "null," * 30_000 + "1]"), 422, "features.trips.0"),
    "many keys": (
        "{" + ",".join(f'"{i}":1' for i in range(20_000)) + "}",
        422,
        "must be an object",
    ),
    "too long": ("x" * 200_001, 413, "longer than 200000 bytes"),
    "far too long": (b"x" * 5_000_000, 413, "longer than 200000 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_bodies_are_refused(server, fault, well):
    body, expected, message = FAULTS[fault]
    status, answer, headers = server.ask("POST", "/score", body)
    assert status == expected
    told = json.loads(answer)
    assert message in " ".join(told["errors"])
    assert len(answer) < 1000
    assert told["request_id"] == headers["x-request-id"]


def test_the_answer_does_not_repeat_values(server):
    _, answer, _ = server.ask("POST", "/score", with_values('[1.0, "card 4242"]'))
    assert b"4242" not in answer


@pytest.mark.parametrize(
    ("method", "route", "headers", "expected"),
    [
        ("GET", "/score", {}, 405),
        ("DELETE", "/health", {}, 405),
        ("POST", "/", JSON, 404),
        ("GET", "/../../etc/passwd", {}, 404),
        ("GET", "/docs", {}, 404),
        ("GET", "/%00%0a%ff", {}, 404),
        ("POST", "/score", {"content-type": "text/plain"}, 415),
        ("POST", "/score", {}, 415),
        ("POST", "/score", JSON | {"content-encoding": "gzip"}, 415),
    ],
)
def test_wrong_requests_are_refused(server, method, route, headers, expected, well):
    body = json.dumps(GOOD) if method == "POST" else None
    assert server.ask(method, route, body, headers)[0] == expected


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
        b"content-type: application/json\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http_is_refused(server, sent, well):
    with server.raw() as connection:
        connection.sendall(sent)
        assert connection.recv(100).startswith(b"HTTP/1.1 4")


def test_a_chunked_body_is_limited_as_well(server, well):
    with server.raw() as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for _ in range(30):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def head(length):
    return (
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % length
    )


def read_all(connection):
    """Everything until the server hangs up; fails by the socket's timeout if it does not."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def trickle(connection, pieces):
    """Send a byte at a time, slowly, until the server has answered or hung up."""
    connection.setblocking(False)
    for piece in pieces:
        try:
            connection.send(piece)
            time.sleep(0.1)
            if connection.recv(1, socket.MSG_PEEK) is not None:
                break
        except BlockingIOError:
            continue
        except ConnectionError:
            break
    connection.settimeout(20)


@pytest.mark.parametrize("sent", [b"", b"POST /sco", b"POST /score HTTP/1.1\r\nx: "])
def test_a_slow_head_is_cut_off(server, sent, well):
    with server.raw() as connection:
        connection.sendall(sent)
        trickle(connection, [b"y"] * 100 if sent else [])
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_a_head_without_end_is_cut_off(server, well):
    with server.raw() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nx: ")
        trickle(connection, [b"y" * 10_000] * 5)
        assert read_all(connection).startswith(b"HTTP/1.1 400")


def test_a_slow_body_is_cut_off(server, well):
    with server.raw() as connection:
        connection.sendall(head(5000))
        trickle(connection, [b" "] * 100)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 1.5 s" in answer


def test_clients_that_hang_up_do_no_harm(server, well):
    for sent in (b"", b"POST", head(5000), head(5000) + b"{"):
        with server.raw() as connection:
            connection.sendall(sent)
    body = json.dumps(request(np.ones((500, 3)))).encode()
    with server.raw() as connection:
        connection.sendall(head(len(body)) + body)


def test_clients_at_one_time_get_their_own_answers(server, data, model, well):
    def one(seed):
        rows = np.random.default_rng(seed).permutation(data[0])[: 20 + seed]
        status, answer = server.score(rows)
        return status, np.abs(np.array(answer["probabilities"]) - model.probabilities(rows)).max()

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        results = list(pool.map(one, range(120)))
    assert {status for status, _ in results} == {200}
    assert max(error for _, error in results) < 1e-12


def test_too_many_arriving_at_one_time_are_refused(server, well):
    held = [server.raw() for _ in range(20)]
    try:
        for connection in held:
            connection.sendall(head(5000) + b"{")
        seen = set()
        while seen < {429} and held:
            status, _, headers = server.ask("POST", "/score", json.dumps(GOOD))
            seen.add(status)
        assert headers["retry-after"] == "1"
        assert server.ask("GET", "/health")[0] == 200
    finally:
        for connection in held:
            connection.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=json_values,
    where=st.sampled_from(["visit", "candidates", "features", "trips", "spend", "new"]),
)
def test_any_json_gets_an_answer_that_is_no_fault_of_the_server(server, values, where):
    inside = GOOD["features"]
    parts = {"features": inside | {where: values}} if where in inside else {where: values}
    status, answer, _ = server.ask("POST", "/score", changed(**parts))
    assert status in {200, 422}
    assert json.loads(answer).keys() >= ({"ranking"} if status == 200 else {"errors"})


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 120),
    length=st.integers(0, 120),
    inserted=st.binary(max_size=40) | st.sampled_from([b"[" * 500, b"1e9", b"\\u0000", b"\x00"]),
)
def test_any_bytes_get_an_answer_that_is_no_fault_of_the_server(server, start, length, inserted):
    whole = json.dumps(GOOD).encode()
    body = whole[:start] + inserted + whole[start + length :]
    status, answer, _ = server.ask("POST", "/score", body)
    assert status in {200, 422}
    assert json.loads(answer).keys() >= ({"ranking"} if status == 200 else {"errors"})


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sent=st.binary(min_size=1, max_size=200))
def test_any_bytes_that_are_no_request_leave_the_server_well(server, sent):
    with server.raw() as connection:
        connection.sendall(sent + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.ask("GET", "/health")[0] == 200


# --- what is watched, corrected and logged --------------------------------------------------


def metrics(server):
    return server.ask("GET", "/metrics")[1].decode()


def value(text, name):
    """Sum of the samples of this name, labels included where given."""
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
    assert found, name
    return sum(map(float, found))


def test_metrics_count_requests_scores_and_features(server, data, model):
    before, rows = metrics(server), data[0][:300]
    server.score(rows)
    server.ask("POST", "/score", "broken")
    server.ask("GET", "/nothing?card=4242")
    after = metrics(server)

    def grown(name):
        return value(after, name) - (value(before, name) if name in before else 0)

    assert (model.log_odds(rows) <= -2.75).sum() not in {0, 300}

    assert grown('recbal_requests_total{route="/score",status="200"}') == 1
    assert grown('recbal_requests_total{route="/score",status="422"}') == 1
    assert grown('recbal_requests_total{route="other",status="404"}') == 1
    assert grown('recbal_score_log_odds_bucket{le="+Inf"}') == 300
    assert (
        grown('recbal_score_log_odds_bucket{le="-2.75"}') == (model.log_odds(rows) <= -2.75).sum()
    )
    for name, counts in zip(NAMES, model.reference.count(rows), strict=True):
        for i, count in enumerate(counts):
            assert grown(f'recbal_feature_rows_total{{bin="{i}",feature="{name}"}}') == count
    assert "4242" not in after


def test_a_monitor_reads_drift_and_prior_from_the_metrics(server, data, model):
    before = monitor.read_metrics(metrics(server))
    rows = data[0][:400] * np.float32(2)
    server.score(rows)
    seen = monitor.read_metrics(metrics(server)) - before
    np.testing.assert_array_equal(
        drift.stability(model.reference, seen.features(model.reference)),
        drift.stability(model.reference, model.reference.count(rows)),
    )
    p, weight = seen.scores()
    assert weight.sum() == 400
    exact = monitor.estimate_prior(model.probabilities(rows), model.prior)
    assert monitor.estimate_prior(p, model.prior, weight) == pytest.approx(exact, rel=0.05)


def test_a_correction_is_taken_up_while_serving(server, correction, data, model):
    rows = data[0][:50]
    plain = model.probabilities(rows)

    def answer_with(shift):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            answer = server.score(rows)[1]
            if answer["correction"] == shift:
                return answer
            time.sleep(0.1)
        raise AssertionError(answer)

    assert answer_with(0)["correction"] == 0
    try:
        monitor.write_correction(correction, 0.7, "labels of week 30")
        expected = calibrate.shift_log_odds(plain, 0.7)
        np.testing.assert_allclose(answer_with(0.7)["probabilities"], expected, rtol=1e-9)
        for broken in ('{"log_odds_shift": NaN}', '{"log_odds_shift": 99}', "[]"):
            correction.write_text(broken)
            time.sleep(1.2)
            assert server.score(rows)[1]["correction"] == 0.7
        assert value(metrics(server), "recbal_correction_nats") == 0.7
        assert sum(line["event"] == "correction refused" for line in server.lines()) == 3
    finally:
        monitor.write_correction(correction, 0, "taken back")
    np.testing.assert_allclose(answer_with(0)["probabilities"], plain, rtol=1e-12)


def test_log_lines_are_json_and_hold_nothing_of_the_request(server, data):
    server.score(data[0][:3], visit="household-4242", candidates=["x-4242", "y", "z"])
    server.ask("GET", "/nothing-4242?q=4242")
    server.ask("POST", "/score", with_values('[1.0, "4242"]'), JSON | {"user-agent": "4242"})
    with server.raw() as connection:
        connection.sendall(b"4242 4242 4242\r\n\r\n")
        connection.recv(100)
    _, _, headers = server.ask("GET", "/health")
    end = time.monotonic() + 10
    while time.monotonic() < end:
        lines = [line for line in server.lines() if line["event"] == "request"]
        if any(line["request_id"] == headers["x-request-id"] for line in lines):
            break
    text = "\n".join(
        json.dumps({k: v for k, v in line.items() if k not in {"time", "request_id", "ms"}})
        for line in server.lines()
    )
    assert "4242" not in text
    assert "127.0.0.1" not in text.replace('"host": "127.0.0.1"', "")
    wanted = {"time", "level", "event", "request_id", "route", "status", "ms", "candidates"}
    assert all(line.keys() >= wanted for line in lines)
    assert {line["route"] for line in lines} == {"/score", "/health", "/metrics", "other"}


# --- start and stop -------------------------------------------------------------------------


def refuses_within(seconds, running):
    """Whether the server refuses new connections before so many seconds have passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            running.raw().close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.05)
    return False


def test_sigterm_lets_a_request_finish(path, data, tmp_path):
    running = Running(path, tmp_path / "log", "--body-seconds", "20")
    body = json.dumps(request(data[0][:5])).encode()
    with running.raw() as connection:
        connection.sendall(head(len(body)) + body[:20])
        while value(metrics(running), "recbal_arriving") < 1:
            time.sleep(0.05)
        running.process.send_signal(signal.SIGTERM)
        assert refuses_within(20, running)
        connection.sendall(body[20:])
        assert read_all(connection).startswith(b"HTTP/1.1 200")
    assert running.process.wait(30) == 0
    assert running.lines()[-1]["event"] == "stopped"


def test_a_request_that_never_ends_does_not_hold_up_the_stop(path, tmp_path):
    options = ("--body-seconds", "300", "--stop-seconds", "1")
    running = Running(path, tmp_path / "log", *options)
    with running.raw() as connection:
        connection.sendall(head(5000) + b"{")
        while value(metrics(running), "recbal_arriving") < 1:
            time.sleep(0.05)
        assert running.stop() == 0


@pytest.mark.parametrize("case", ["missing model", "broken model", "port in use", "wrong host"])
def test_what_cannot_start_says_so_in_one_line(case, path, tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = {
            "missing model": [tmp_path / "none.npz"],
            "broken model": [broken],
            "port in use": [path, "--port", port],
            "wrong host": [path, "--host", "256.0.0.1"],
        }[case]
        done = subprocess.run(
            [sys.executable, "-m", "recbal_utils.serve", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("recbal_utils.serve: ")
    assert done.stderr.count("\n") == 1


def test_small_answers_are_sent_at_once():
    with _serving.bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_fault_of_the_code_is_a_500_without_details(model, caplog):
    class Faulty:
        feature_names, reference = NAMES, None
        model_version = features_version = "1"

        def log_odds(self, X):
            if X[0, 0] == 7:
                raise ZeroDivisionError("card 4242")
            return np.zeros(len(X))

    client = TestClient(serve.create_app(Faulty()), raise_server_exceptions=False)
    answer = client.post("/score", json=request(np.full((1, 3), 7.0)))
    assert answer.status_code == 500
    assert answer.json()["errors"] == ["The server failed."]
    assert client.post("/score", json=request(np.ones((1, 3)))).status_code == 200
    record = next(record for record in caplog.records if record.getMessage() == "failed")
    line = json.loads(_serving.JsonFormatter().format(record))
    assert line["exception"] == "ZeroDivisionError"
    assert line["at"].startswith("test_serve.py:")
    assert "4242" not in json.dumps(line)


def test_the_schema_is_published(server):
    schema = json.loads(server.ask("GET", "/openapi.json")[1])
    body = schema["paths"]["/score"]["post"]["requestBody"]
    properties = body["content"]["application/json"]["schema"]["properties"]
    assert set(properties) == {"visit", "candidates", "features"}
