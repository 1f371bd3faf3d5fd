"""Federated averaging, secure sums, and the same clients under Flower."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from conftest import ROOT, must
from scipy import stats

from recbal_utils import federated, flower
from recbal_utils.errors import RecbalError

PACKAGES = ROOT / "_build" / "flower" / "packages"
SETTINGS = {"rounds": 3, "learning_rate": 0.5, "seed": 4}


def rows_of(n, seed=0, d=4):
    rng = np.random.default_rng(seed)
    X = rng.exponential(size=(n, d)).astype(np.float32)
    return X, (rng.random(n) < 1 / (1 + np.exp(2 - X[:, 0]))).astype(int)


def clients(sizes=(40, 130, 75)):
    return [federated.Client(str(k), *rows_of(n, k)) for k, n in enumerate(sizes)]


@pytest.fixture(scope="module")
def model():
    return federated.network(4, hidden=5, seed=1)


@pytest.fixture(scope="module")
def start(model):
    return [part.copy() for part in model.get_weights()]


def apart(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


# ---- the loop --------------------------------------------------------------------------------


def test_one_client_equals_central_training(model, start):
    """The oracle is Keras: its SGD on the same batches, in the same order."""
    import keras

    (client,) = clients((150,))
    local = federated.LocalTraining(model, batch_size=32)
    found = federated.fed_avg(start, [client], local, **SETTINGS)
    central = keras.models.clone_model(model)
    central.set_weights(start)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    for number in range(3):
        rate = federated.decayed(0.5, number, 3)
        central.compile(keras.optimizers.SGD(rate), loss)
        order = np.random.default_rng((4, number, 0)).permutation(150)
        X, y = client.X[order], client.y[order].astype(np.float32)[:, None]
        central.fit(X, y, batch_size=32, shuffle=False, verbose=0)
    assert apart(found, central.get_weights()) < 1e-5
    assert apart(found, start) > 0.01


def test_identical_clients_equal_one_of_them(model, start):
    """With whole rows as one batch, averaging copies is the same as one client."""
    (client,) = clients((90,))
    local = federated.LocalTraining(model, batch_size=1000)
    one = federated.fed_avg(start, [client], local, **SETTINGS)
    four = federated.fed_avg(start, [client] * 4, local, **SETTINGS)
    assert apart(one, four) < 1e-6


def test_one_full_step_at_each_client_is_one_step_on_all_rows(model, start):
    """FedSGD: the average of gradients, weighted by rows, is the gradient of the pooled rows."""
    many, settings = clients(), {**SETTINGS, "rounds": 1}
    pooled = federated.Client("all", np.vstack([c.X for c in many]), np.hstack([c.y for c in many]))
    local = federated.LocalTraining(model, batch_size=1000)
    found = federated.fed_avg(start, many, local, **settings)
    assert apart(found, federated.fed_avg(start, [pooled], local, **settings)) < 1e-6


def test_the_average_counts_rows():
    mean = federated.average([[np.zeros(2)], [np.ones(2)]], [1, 3])
    np.testing.assert_allclose(mean[0], 0.75)


def test_a_seed_gives_the_same_weights_and_another_does_not(model, start):
    local = federated.LocalTraining(model, batch_size=16)
    one, two = (federated.fed_avg(start, clients(), local, **SETTINGS) for _ in range(2))
    other = federated.fed_avg(start, clients(), local, **{**SETTINGS, "seed": 5})
    assert apart(one, two) == 0 < apart(one, other)


def test_log_odds_in_numpy_are_those_of_keras(model, start):
    X, _ = rows_of(30)
    model.set_weights(start)
    expected = np.asarray(model(X))[:, 0]
    np.testing.assert_allclose(federated.log_odds(start, X), expected, rtol=1e-5, atol=1e-6)


def test_bytes_count_both_ways(start):
    numbers = 4 * 5 + 5 + 5 + 1
    assert federated.bytes_sent(start, n_clients=10, rounds=2) == 2 * 2 * 10 * 4 * numbers


def test_rows_are_cut_by_store():
    X, y = rows_of(50)
    store = np.arange(50) % 3
    parts = federated.clients_of(X, y, store)
    assert [part.name for part in parts] == ["0", "1", "2"]
    np.testing.assert_array_equal(parts[1].X, X[store == 1])
    np.testing.assert_array_equal(parts[2].y, y[store == 2])


# ---- secure sums -----------------------------------------------------------------------------


def vectors(n=7, m=50):
    return np.random.default_rng(3).normal(size=(n, m)) * 1000


def test_a_secure_sum_is_the_sum():
    np.testing.assert_allclose(federated.secure_sum(vectors()), vectors().sum(axis=0), atol=1e-8)


def test_what_one_client_sends_is_uniform_and_unlike_what_it_has():
    sent = federated.masked([np.zeros(20_000), np.ones(20_000), np.ones(20_000)], seed=2)
    for part in sent:
        share = part.astype(np.float64) / 2.0**64
        assert stats.kstest(share, "uniform").pvalue > 1e-3
    ones, zeros = sent[1].astype(np.float64), sent[0].astype(np.float64)
    assert abs(ones.mean() - zeros.mean()) < 5 * 2**64 / np.sqrt(12 * 10_000)
    assert (federated.masked(np.ones((3, 5)), 0) != federated.masked(np.ones((3, 5)), 1)).all()


def test_all_but_one_client_hide_nothing_less_than_all():
    """Any strict subset of what is sent is noise: only the whole sum has no masks left."""
    sent = federated.masked(vectors(), seed=1)
    part = federated.unmasked_sum(sent[:-1])
    assert np.abs(part - vectors()[:-1].sum(axis=0)).min() > 1e4


def test_moments_by_secure_sums_are_those_of_the_pooled_rows():
    many = clients()
    mean, deviation = federated.moments(many)
    pooled = np.log1p(np.vstack([client.X for client in many]))
    np.testing.assert_allclose(mean, pooled.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, pooled.std(axis=0), rtol=1e-5)
    again = np.vstack([federated.standardised(client, mean, deviation).X for client in many])
    np.testing.assert_allclose(again.mean(axis=0), 0, atol=1e-5)


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: federated.masked(np.ones((2, 3))), "3 clients or more"),
        (lambda: federated.masked(np.ones(3)), "3 clients or more"),
        (lambda: federated.masked(np.full((3, 1), 2.0**31)), "divide the values"),
        (lambda: federated.masked(np.full((3, 1), np.nan)), "not finite"),
        (lambda: federated.average([], []), "0 sets of weights"),
        (lambda: federated.average([[np.ones(1)]], [0]), "sum above 0"),
        (lambda: federated.clients_of(np.ones((3, 1)), [0, 1], [1, 1, 1]), "X has 3 rows, y 2"),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, says):
    with pytest.raises(RecbalError, match=says):
        call()


# ---- Flower ----------------------------------------------------------------------------------


def test_without_flower_one_line_names_the_extra(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr", None)
    with pytest.raises(RecbalError, match=r"^Flower is not installed.*requirements-flower\.txt"):
        flower.fed_avg(start, clients(), None, **SETTINGS)


def test_flower_is_pinned_and_stays_out_of_the_environment_of_the_book():
    pins = (ROOT / "requirements-flower.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in pins if line and not line.startswith("#")]
    assert "flwr==1.42.0" in packages
    assert all("==" in line for line in packages)
    assert "flwr" not in (ROOT / "requirements.txt").read_text(encoding="utf-8")


BOTH_LOOPS = """
import sys
sys.path[:0] = [sys.argv[1], "tests"]
import logging
from test_federated import SETTINGS, apart, clients
from recbal_utils import federated, flower
model = federated.network(4, hidden=5, seed=1)
start, local = model.get_weights(), federated.LocalTraining(model, batch_size=16)
plain = federated.fed_avg(start, clients(), local, **SETTINGS)
logging.getLogger("flwr").setLevel(logging.WARNING)
found, sent = flower.fed_avg(start, clients(), local, **SETTINGS)
print(apart(plain, found), apart(plain, start), sent == federated.bytes_sent(start, 3, 3))
"""


def test_flower_and_the_plain_loop_give_the_same_weights():
    must((PACKAGES / ".installed").exists(), "Flower is not installed; run 'make flower-test'")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", BOTH_LOOPS, str(PACKAGES)]
    run = partial(subprocess.run, cwd=ROOT, env=environment, check=False)
    done = run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    gap, moved, same_bytes = done.stdout.split()[-3:]
    assert float(gap) < 1e-5 < float(moved)
    assert same_bytes == "True"


# ---- the record ------------------------------------------------------------------------------


def project_with(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / getattr(flower, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def a_record(**changes):
    return json.dumps({**dict.fromkeys(flower.NEEDED, 0), "machine": "M", **changes})


def test_an_own_record_is_preferred_and_each_is_labelled(tmp_path):
    carried = project_with(tmp_path, CARRIED=a_record(date="2020-01-01"))
    assert flower.record(carried)["source"] == "recorded on 2020-01-01: M"
    both = project_with(tmp_path, FRESH=a_record(date="2021-01-01"))
    assert flower.record(both)["source"] == "measured on this machine on 2021-01-01: M"


@pytest.mark.parametrize("content", ["{", "[]", '{"date": 1}'])
def test_a_damaged_record_is_told_in_one_sentence(tmp_path, content):
    project = project_with(tmp_path, CARRIED=content)
    with pytest.raises(RecbalError, match=r"^The record 19_.*\.json .*flower-test'[^\n]*$"):
        flower.record(project)


def test_the_carried_record_names_no_host_and_no_path():
    text = (ROOT / flower.CARRIED).read_text(encoding="utf-8")
    assert set(flower.NEEDED) <= set(json.loads(text))
    assert os.uname().nodename not in json.loads(text)["machine"].split()
    assert not any(word in text for word in ("/home", "/root", "/tmp", "/work"))
