"""Counting baselines, the neural models and their losses, on catalogues small enough to check."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import log_softmax
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from recbal_utils import baskets as bk
from recbal_utils import next_item
from recbal_utils.errors import RecbalError

N_ITEMS = 7
SIZES = {"n_places": 7, "n_baskets": 3, "length": 8}


@pytest.fixture(scope="module")
def shop():
    """A made-up shop: 40 households, 12 baskets each; every household has two habits."""
    rng = np.random.default_rng(0)
    rows = []
    for household in range(40):
        habits = rng.choice(N_ITEMS, 2, replace=False)
        for number in range(12):
            once = rng.integers(N_ITEMS)
            week, hour = number + 1, 168.0 * number
            rows += [
                (household, 100 * household + number, week, hour, f"type {item}")
                for item in {*habits.tolist(), once}
            ]
    return bk.from_lines(pd.DataFrame(rows, columns=list(bk.COLUMNS)))


@pytest.fixture(scope="module")
def part(shop):
    rows = shop.rows(range(1, 13))
    history = bk.histories(shop, rows)
    arrays = next_item.inputs(shop, rows, history, **SIZES)
    return rows, history, arrays, shop.items[rows]


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def built(keras, part, counts, seed=0, **options):
    keras.utils.set_random_seed(seed)
    statistics = next_item.pair_statistics(part[1])
    return next_item.build(N_ITEMS, counts, statistics, dim=8, **SIZES, **options)


# --- counting -------------------------------------------------------------------------------


def test_popularity_is_the_same_for_all():
    score = next_item.popularity([3, 1, 2])
    assert score(4, 6).tolist() == [[3, 1, 2], [3, 1, 2]]


def test_personal_counts_and_backs_off(shop, part):
    _, history, _, _ = part
    counts = shop.counts(range(1, 13))
    score = next_item.personal(history, counts)(0, len(history))
    np.testing.assert_allclose(
        score, history.matrix(history.purchases).toarray() + 1e-6 * counts / counts.max(), rtol=1e-6
    )
    one = score[0]
    never = history.matrix().toarray()[0] == 0
    assert one[never].max() < one[~never].min()
    assert (np.argsort(one[never]) == np.argsort(counts[never])).all()


def test_personal_fading(part):
    _, history, _, _ = part
    score = next_item.personal(history, np.ones(N_ITEMS), half_life=28.0)(0, 5)
    fading = history.matrix(history.recent[:, 1])[:5].toarray()
    np.testing.assert_allclose(score - score.min(), fading - fading.min(), atol=2e-6)
    with pytest.raises(RecbalError, match="half_life"):
        next_item.personal(history, np.ones(N_ITEMS), half_life=3.0)


def test_households_by_a_plain_table(shop):
    bought = next_item.households(shop, [1, 2]).toarray()
    inside = np.isin(shop.week, [1, 2])
    table = pd.DataFrame(shop.items.toarray()[inside]).groupby(shop.household[inside]).max()
    np.testing.assert_array_equal(bought, table.to_numpy())


def test_item_similarity_is_the_cosine_of_columns(shop):
    bought = next_item.households(shop, range(1, 5))
    expected = cosine_similarity(bought.toarray().T)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(next_item.item_similarity(bought), expected, atol=1e-6)


def test_ease_is_ridge_regression_on_the_other_items(shop):
    bought = next_item.households(shop, range(1, 3))
    weights = next_item.ease(bought, penalty=5.0)
    table = bought.toarray()
    for item in range(N_ITEMS):
        others = np.delete(np.arange(N_ITEMS), item)
        ridge = Ridge(5.0, fit_intercept=False).fit(table[:, others], table[:, item])
        np.testing.assert_allclose(weights[others, item], ridge.coef_, atol=1e-4)
    assert (np.diag(weights) == 0).all()
    with pytest.raises(RecbalError, match="penalty"):
        next_item.ease(bought, 0)


def test_item_to_item_sums_the_weights_of_known_items(part):
    _, history, _, _ = part
    weights = np.arange(N_ITEMS**2, dtype=np.float32).reshape(N_ITEMS, N_ITEMS)
    known = history.matrix().toarray()
    score = next_item.item_to_item(history, weights)(3, 6)
    np.testing.assert_allclose(score, known[3:6] @ weights)


def test_judge_takes_the_three_lists_apart():
    score = next_item.popularity([5, 4, 3, 2, 1])
    known = sparse.csr_array(np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=bool))
    bought = sparse.csr_array(np.array([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]], dtype=bool))
    recall = next_item.judge(score, bought, known, k=2)["recall_at_2"]
    recall = {name: values.droplevel("list") for name, values in recall.groupby("list")}
    assert recall["all"].tolist() == [0.5, 0.0]
    assert recall["repeats"][0] == 1.0
    assert np.isnan(recall["repeats"][1])
    assert recall["first-time"].tolist() == [1.0, 0.0]


def test_shown_counts_places():
    score = next_item.popularity([5, 4, 3])
    left_out = sparse.csr_array(np.array([[1, 0, 0], [0, 0, 0]], dtype=bool))
    assert next_item.shown(score, 2, 3, k=2).tolist() == [2, 2, 0]
    assert next_item.shown(score, 2, 3, k=2, exclude=left_out).tolist() == [1, 2, 1]


# --- models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", next_item.ENCODERS)
def test_a_model_starts_near_popularity_and_comes_back_from_a_file(
    keras, shop, part, encoder, tmp_path
):
    rows, history, arrays, _ = part
    counts = shop.counts(range(1, 13))
    model = built(keras, part, counts, encoder=encoder, forgiven=1.0)
    z = next_item.scores(model, arrays, N_ITEMS, block=100)(0, len(rows))
    assert z.shape == (len(rows), N_ITEMS)
    popular = np.log(counts / counts.sum())
    start = np.where(history.matrix().toarray(), 0, popular)  # a known type is forgiven all
    np.testing.assert_allclose(z, start, atol=1.5)
    assert np.abs(z - start).mean() < np.abs(z - popular).mean()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(next_item.scores(again, arrays, N_ITEMS)(0, 9), z[:9], atol=1e-5)
    model.export(tmp_path / "served", verbose=False)
    assert (tmp_path / "served" / "saved_model.pb").exists()


@pytest.mark.parametrize("encoder", next_item.ENCODERS)
def test_padding_and_the_place_of_an_item_do_not_matter(keras, shop, part, encoder):
    _, _, arrays, _ = part
    model = built(keras, part, np.ones(N_ITEMS), encoder=encoder)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    few = {name: values[:30] for name, values in arrays.items()}
    turned = dict(few)
    turned["known"], turned["pairs"] = few["known"][:, ::-1], few["pairs"][:, ::-1].copy()
    turned["pairs"][turned["known"] == 0] = 9  # what stands beside padding is ignored
    z, same = (next_item.scores(model, x, N_ITEMS)(0, 30) for x in (few, turned))
    np.testing.assert_allclose(z, same, atol=1e-4)
    assert np.ptp(z - z.mean(axis=0), axis=0).min() > 0.01


def test_the_order_of_baskets_matters_to_sequence_models_alone(keras, part):
    _, _, arrays, _ = part
    long = arrays["age"].max(axis=1) == 3
    few = {name: values[long][:40] for name, values in arrays.items()}
    swapped = few | {"age": np.where(few["age"] > 0, 4 - few["age"], 0)}
    for encoder in next_item.ENCODERS:
        model = built(keras, part, np.ones(N_ITEMS), encoder=encoder)
        rng = np.random.default_rng(0)
        model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
        z, other = (next_item.scores(model, x, N_ITEMS)(0, 40) for x in (few, swapped))
        assert np.allclose(z, other, atol=1e-5) == (encoder == "average")


def test_the_repeat_head_touches_known_items_alone(keras, part):
    _, history, arrays, _ = part
    model = built(keras, part, np.ones(N_ITEMS))
    before = next_item.scores(model, arrays, N_ITEMS)(0, 20)
    model.get_layer("repeat").bias.assign([2.0])
    after = next_item.scores(model, arrays, N_ITEMS)(0, 20)
    known = history.matrix()[:20].toarray()
    np.testing.assert_allclose(after - before, 2.0 * known, atol=1e-5)


def test_ids_out_of_range_are_an_error_before_native_code(keras, part):
    _, _, arrays, items = part
    model = built(keras, part, np.ones(N_ITEMS))
    wrong = arrays | {"known": np.where(arrays["known"] == 0, N_ITEMS + 2, arrays["known"])}
    with pytest.raises(RecbalError, match="Item ids run"):
        next_item.scores(model, wrong, N_ITEMS)
    with pytest.raises(RecbalError, match="Item ids run"):
        next_item.Batches(model, wrong, items)


def test_an_unknown_type_is_ignored_by_the_head(keras, part):
    _, _, arrays, _ = part
    model = built(keras, part, np.ones(N_ITEMS))
    unknown = arrays | {"known": np.where(arrays["known"] == 2, bk.UNKNOWN, arrays["known"])}
    gone = arrays | {"known": np.where(arrays["known"] == 2, bk.PADDING, arrays["known"])}
    z, other = (next_item.scores(model, x, N_ITEMS)(0, 20) for x in (unknown, gone))
    np.testing.assert_allclose(z, other, atol=1e-6)


def test_an_unknown_encoder(keras, part):
    with pytest.raises(RecbalError, match="encoder"):
        built(keras, part, np.ones(N_ITEMS), encoder="bag")


def test_it_learns_the_habits(keras, shop, part):
    _, history, arrays, items = part
    counts = shop.counts(range(1, 13))
    model = built(keras, part, counts)
    batches = next_item.Batches(model, arrays, items, batch_size=64)
    next_item.compile_model(model, next_item.BasketCrossentropy(), 12 * len(batches), 0.02)
    model.fit(batches, epochs=12, verbose=0, shuffle=False)
    popular, learnt = (
        next_item.judge(score, items, history.matrix(), k=2)["recall_at_2"].loc["all"].mean()
        for score in (next_item.popularity(counts), next_item.scores(model, arrays, N_ITEMS))
    )
    assert learnt > popular + 0.2


# --- losses ---------------------------------------------------------------------------------


def test_basket_crossentropy_by_hand(keras):
    z = np.array([[1.0, 2.0, 3.0, -1.0], [0.5, 0.0, 0.0, 4.0]], np.float32)
    y = np.array([[0.5, 0, 0.5, 0], [1.0, 0, 0, -1]], np.float32)
    full = log_softmax(z[0])
    few = log_softmax(z[1, :3])
    loss = next_item.BasketCrossentropy(reduction="none")(y, z)
    np.testing.assert_allclose(loss, [-(full[0] + full[2]) / 2, -few[0]], rtol=1e-5)
    nothing = np.array([[0, 0, -1, -1]], np.float32)
    assert float(next_item.BasketCrossentropy()(nothing, z[:1])) == 0


def test_drawn_crossentropy_over_all_items_is_the_full_softmax(keras):
    z = np.random.default_rng(0).normal(size=(5, N_ITEMS)).astype(np.float32)
    chosen = np.array([[0], [3], [3], [6], [1]])
    loss = next_item.DrawnCrossentropy(reduction="none")(chosen, z)
    np.testing.assert_allclose(loss, -log_softmax(z, axis=1)[np.arange(5), chosen[:, 0]], rtol=1e-5)


def test_in_batch_negatives_are_the_other_rows(keras):
    z = np.random.default_rng(1).normal(size=(3, N_ITEMS)).astype(np.float32)
    chosen = np.array([2, 5, 2])
    y = np.column_stack([chosen, np.tile(chosen, (3, 1))])
    loss = next_item.DrawnCrossentropy(in_batch=True, reduction="none")(y, z)
    expected = [
        -log_softmax([z[r, c] for c in [chosen[r], *np.delete(chosen, r)]])[0] for r in (0, 1, 2)
    ]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_log_q_gives_the_gradient_of_the_full_softmax(keras):
    """Negatives drawn by q pull as the softmax does once corrected, and elsewhere if not."""
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(2)
    q = np.array([0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02])
    z = rng.normal(size=(1, N_ITEMS)).astype(np.float32)
    y = np.r_[4, rng.choice(N_ITEMS, 20_000, p=q)][None]

    def pull(loss, labels):
        logits = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, logits)
        return tf.convert_to_tensor(tape.gradient(value, logits)).numpy()[0]

    full = pull(next_item.DrawnCrossentropy(), y[:, :1])
    corrected = pull(next_item.DrawnCrossentropy(np.log(q)), y)
    plain = pull(next_item.DrawnCrossentropy(), y)
    np.testing.assert_allclose(corrected, full, atol=0.01)
    assert np.abs(plain - full).max() > 0.1


def test_losses_come_back_from_their_settings(keras):
    loss = next_item.DrawnCrossentropy(np.log([0.5, 0.5]), in_batch=True)
    again = next_item.DrawnCrossentropy.from_config(loss.get_config())
    assert again.in_batch
    np.testing.assert_allclose(again.log_q, np.log([0.5, 0.5]), rtol=1e-6)


# --- batches --------------------------------------------------------------------------------


def test_plain_batches_hold_the_baskets(keras, part):
    _, _, arrays, items = part
    model = built(keras, part, np.ones(N_ITEMS), encoder="gru")
    batches = next_item.Batches(model, arrays, items, batch_size=50, puzzles=0)
    taken, labels = batches[1]
    at = batches.order[50:100]
    np.testing.assert_array_equal(taken["known"], arrays["known"][at])
    np.testing.assert_array_equal(labels > 0, items[at].toarray())
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)


def test_puzzles_hide_items_everywhere_and_ask_for_them(keras, part):
    _, history, arrays, items = part
    model = built(keras, part, np.ones(N_ITEMS), encoder="gru")
    whole = arrays["known"].copy()
    batches = next_item.Batches(model, arrays, items, batch_size=80, puzzles=1, hidden=(0.3, 0.6))
    taken, labels = batches[0]
    at = batches.order[:80]
    known, bought = history.matrix()[at].toarray(), items[at].toarray()
    seen = np.zeros_like(known)
    row, place = np.nonzero(taken["known"])
    seen[row, taken["known"][row, place] - bk.FIRST_ID] = True
    assert 0.2 < 1 - seen.sum() / known.sum() < 0.7
    np.testing.assert_array_equal(labels < 0, seen)
    np.testing.assert_array_equal(labels > 0, (known | bought) & ~seen)
    late = np.zeros_like(known)
    row, place = np.nonzero(taken["recent"])
    late[row, taken["recent"][row, place] - bk.FIRST_ID] = True
    assert not (late & ~seen).any()
    np.testing.assert_array_equal(arrays["known"], whole)


def test_batches_depend_on_seed_and_epoch(keras, part):
    _, _, arrays, items = part
    model = built(keras, part, np.ones(N_ITEMS))
    one, same, other = (
        next_item.Batches(model, arrays, items, batch_size=32, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one[2][1], same[2][1])
    assert not np.array_equal(one[2][1], other[2][1])
    first = one[2][1]
    one.on_epoch_end()
    assert not np.array_equal(one[2][1], first)


@pytest.mark.parametrize(("draw", "width"), [("full", 1), ("batch", 33), ("popular", 11)])
def test_drawn_labels(keras, part, draw, width):
    _, _, arrays, items = part
    model = built(keras, part, np.ones(N_ITEMS), repeat=False)
    chance = np.full(N_ITEMS, 1 / N_ITEMS)
    batches = next_item.Batches(
        model, arrays, items, batch_size=32, draw=draw, popular=chance, n_drawn=10
    )
    labels = batches[0][1]
    assert labels.shape == (32, width)
    held = items[batches.order[:32]].toarray()
    assert held[np.arange(32), labels[:, 0]].all()
    if draw == "batch":
        np.testing.assert_array_equal(np.diag(labels[:, 1:]), labels[:, 0])
