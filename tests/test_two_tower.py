"""Two towers: inputs, towers that save and load, negatives, and the streaming frequency."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from recbal_utils import two_tower
from recbal_utils.errors import RecbalError

RNG = np.random.default_rng(0)


def bags(n=40, length=3, n_ids=30, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, n_ids, size=(n, length)).astype(np.int32)
    return two_tower.Bags(ids, np.ones(ids.shape, np.float32), n_ids)


# --- inputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, 30])
def test_an_id_out_of_range_is_refused(wrong):
    ids = bags().ids.copy()
    ids[3, 1] = wrong
    with pytest.raises(RecbalError, match=r"ids run from .* holds 0 to 29"):
        two_tower.Bags(ids, np.ones(ids.shape, np.float32), 30)


def test_shapes_and_types_are_checked():
    ids = bags().ids
    with pytest.raises(RecbalError, match="share a shape"):
        two_tower.Bags(ids, np.ones((40, 2), np.float32), 30)
    with pytest.raises(RecbalError, match="whole numbers"):
        two_tower.Bags(ids.astype(float), np.ones(ids.shape, np.float32), 30)
    with pytest.raises(RecbalError, match="finite"):
        two_tower.Vectors(np.full((2, 2), np.nan))


def test_word_bags_are_tf_idf():
    texts = ["milk 1 gal", "milk chocolate", "motor oil", "milk zebra"]
    known = np.array([True, True, True, False])
    found = two_tower.word_bags(texts, known)
    dense = np.zeros((4, found.n_ids))
    np.put_along_axis(dense, found.ids, found.weights, axis=1)
    vectors = TfidfVectorizer(token_pattern=r"[a-z0-9.]+").fit(texts[:3])
    np.testing.assert_allclose(dense[:, 2:], vectors.transform(texts).toarray(), atol=1e-6)


def test_code_bags_share_one_table():
    found = two_tower.code_bags([np.array([2, 3, 1]), np.array([4, 2, 1])])
    assert found.ids.tolist() == [[2, 6], [3, 4], [1, 1]]
    assert found.n_ids == 7


@given(st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_hashed_codes_stay_in_their_buckets(n_buckets):
    found = two_tower.hashed(np.arange(500), n_buckets)
    assert found[:2].tolist() == [0, 1]
    assert set(found[2:].tolist()) <= set(range(2, 2 + n_buckets))
    counts = np.bincount(found[2:] - 2, minlength=n_buckets)
    assert counts.min() > 0.3 * 498 / n_buckets - 4


def test_centred_vectors():
    values = RNG.normal(3, 0.01, size=(50, 4)).astype(np.float32)
    known = np.arange(50) < 40
    found = two_tower.centred(values, known).values
    np.testing.assert_allclose(found[known].mean(axis=0), 0, atol=1e-4)
    assert np.mean(found[known] ** 2) == pytest.approx(1, abs=1e-4)


# --- towers ---------------------------------------------------------------------------------


def test_a_tower_of_bags_by_hand():
    reads = bags(5)
    model = two_tower.tower(reads, hidden=6, dimension=4)
    table, kernel, bias = model.get_weights()
    expected = np.maximum(table[reads.ids].sum(axis=1), 0) @ kernel + bias
    np.testing.assert_allclose(two_tower.vectors(model, reads), expected, atol=1e-5)
    assert model.count_params() == 30 * 6 + 6 * 4 + 4


@pytest.mark.parametrize("reads", [bags(5), two_tower.Vectors(np.ones((5, 7), np.float32))])
def test_a_tower_saves_and_loads(reads, tmp_path):
    import keras

    model = two_tower.tower(reads, name="product")
    model.save(tmp_path / "tower.keras")
    again = keras.models.load_model(tmp_path / "tower.keras")
    np.testing.assert_array_equal(two_tower.vectors(again, reads), two_tower.vectors(model, reads))


def test_a_tower_exports(tmp_path):
    import tensorflow as tf

    reads = bags(5)
    model = two_tower.tower(reads, hidden=4, dimension=3)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")  # named, so that its variables live on
    found = served.serve(reads.take(slice(None)))
    np.testing.assert_allclose(found, two_tower.vectors(model, reads), atol=1e-6)


# --- negatives ------------------------------------------------------------------------------


def batch_of(model, data):
    return model.compute_loss(data[0][0])


def test_in_batch_loss_by_hand():
    reads, log_q = bags(), two_tower.exact_log_q(np.arange(1, 41))
    model = two_tower.retrieval(two_tower.tower(reads), two_tower.tower(reads))
    pairs = np.column_stack([np.arange(40), np.arange(40)])
    data = two_tower.batches(pairs, reads, reads, batch_size=16, log_q=log_q)
    rows = data[0][0]["item"]
    u = two_tower.vectors(model.household, reads)[rows]
    v = two_tower.vectors(model.product, reads)[rows]
    scores = u @ v.T - log_q[rows]
    expected = np.logaddexp.reduce(scores, axis=1) - np.diag(scores)
    assert float(batch_of(model, data)) == pytest.approx(expected.mean(), abs=1e-4)


def test_mixed_loss_by_hand():
    reads = bags()
    q = two_tower.mixed_log_q(two_tower.exact_log_q(np.arange(1, 41)), 40, 16, 8)
    assert np.exp(q).sum() == pytest.approx(1, abs=1e-5)
    model = two_tower.retrieval(two_tower.tower(reads), two_tower.tower(reads), "mixed, logQ")
    pairs = np.column_stack([np.arange(40), np.arange(40)])
    data = two_tower.batches(
        pairs, reads, reads, batch_size=16, log_q=q, uniform=np.arange(40), n_uniform=8
    )
    x = data[0][0]
    u = two_tower.vectors(model.household, reads)[x["item"]]
    v = two_tower.vectors(model.product, reads)[x["item"]]
    drawn = np.asarray(model.product(list(x["drawn"])))
    own = (u * v).sum(axis=1) - q[x["item"]]
    scores = np.hstack([u @ v.T - q[x["item"]], u @ drawn.T - x["drawn_log_q"]])
    expected = np.logaddexp.reduce(scores, axis=1) - own
    assert float(batch_of(model, data)) == pytest.approx(expected.mean(), abs=1e-4)


def test_training_finds_who_buys_what():
    """Every household buys products of its own group of four."""
    reads = bags(40, n_ids=60, seed=1)
    household = np.repeat(np.arange(40), 8)
    product = (household // 4) * 4 + RNG.integers(4, size=len(household))
    pairs = np.column_stack([household, product])
    log_q = two_tower.exact_log_q(np.bincount(product, minlength=40))
    model = two_tower.retrieval(two_tower.tower(reads), two_tower.tower(reads), learning_rate=0.01)
    data = two_tower.batches(pairs, reads, reads, batch_size=64, steps=60, log_q=log_q)
    model.fit(data, epochs=2, verbose=0)
    u, v = (two_tower.vectors(t, reads) for t in (model.household, model.product))
    best = (u @ v.T).argmax(axis=1)
    assert np.mean(best // 4 == np.arange(40) // 4) > 0.9


def test_batches_differ_by_epoch_and_repeat_by_seed():
    reads = bags()
    pairs = np.column_stack([np.arange(40), np.arange(40)])
    first, second = (two_tower.batches(pairs, reads, reads, batch_size=8) for _ in range(2))
    np.testing.assert_array_equal(first[1][0]["item"], second[1][0]["item"])
    second.on_epoch_end()
    assert (first[1][0]["item"] != second[1][0]["item"]).any()


def test_lazy_adam_is_adam_on_the_rows_it_moves():
    """Keras's Adam on a dense gradient is the oracle; rows repeat within a batch."""
    import keras
    import tensorflow as tf

    lazy = two_tower._keras_classes()["LazyAdam"](0.05)
    plain = keras.optimizers.Adam(0.05)
    start = RNG.normal(size=(5, 3)).astype(np.float32)
    tables = [keras.Variable(start), keras.Variable(start)]
    for optimizer, table in zip((lazy, plain), tables, strict=True):
        optimizer.build([table])
    for _ in range(4):
        values = RNG.normal(size=(7, 3)).astype(np.float32)
        slices = tf.IndexedSlices(values, tf.constant([0, 1, 1, 2, 3, 0, 1]), (5, 3))
        lazy.apply_gradients([(slices, tables[0])])
        dense = tf.math.unsorted_segment_sum(values, slices.indices, 5)
        plain.apply_gradients([(dense, tables[1])])
    found, expected = (np.asarray(table) for table in tables)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found[4], start[4])


def test_bad_settings():
    small, wide = two_tower.tower(bags()), two_tower.tower(bags(), dimension=32)
    with pytest.raises(RecbalError, match="choose one of in-batch"):
        two_tower.retrieval(small, small, "all")
    with pytest.raises(RecbalError, match="64 and 32"):
        two_tower.retrieval(small, wide)
    with pytest.raises(RecbalError, match=r"Column 1 of pairs runs from 0 to 40"):
        two_tower.batches(np.array([[0, 0], [1, 40]]), bags(), bags())


# --- streaming frequency --------------------------------------------------------------------


def test_gap_by_hand():
    counter = two_tower.StreamingFrequency(2, rate=0.5, start=8)
    for items in ([0, 0], [1, 1], [0, 1], [0, 0]):
        counter.update(np.array(items))
    # item 0 in batches 1, 3, 4: gaps 1, 2, 1 from 8: 4.5, 3.25, 2.125; item 1: gaps 2, 1
    np.testing.assert_allclose(counter.gap, [2.125, 3.0])
    np.testing.assert_allclose(counter.log_q(np.array([0, 1]), 2), -np.log([4.25, 6.0]), rtol=1e-6)


def test_a_stream_tells_rare_from_common_and_is_blind_at_the_head():
    q = np.r_[0.3, np.full(70, 0.01)]
    counter = two_tower.StreamingFrequency(71, rate=0.02, start=10)
    for _ in range(1500):
        counter.update(RNG.choice(71, size=16, p=q))
    found = np.exp(counter.log_q(np.arange(71), 16))
    in_a_batch = 1 - (1 - 0.01) ** 16
    assert found[1:].mean() == pytest.approx(in_a_batch / 16, rel=0.06)
    assert found[0] <= 1 / 16
    assert found[0] == pytest.approx(1 / 16, rel=0.05)


def test_stream_errors():
    with pytest.raises(RecbalError, match="rate is 0"):
        two_tower.StreamingFrequency(3, rate=0)
    with pytest.raises(RecbalError, match="there are 0 to 2"):
        two_tower.StreamingFrequency(3).update(np.array([3]))
