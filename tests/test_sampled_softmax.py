"""Sampled softmax against exact expectations, the full softmax, TensorFlow and plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, softmax

from recbal_utils import losses
from recbal_utils.errors import RecbalError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

SCORES = np.array([0.3, -1.2, 2.0, 0.4])
Q = np.array([0.6, 0.25, 0.1, 0.05])


def loss_of(scores, positive, drawn, *, correct="negatives", remove=True, q=Q):
    """Loss of one row whose negatives are the items `drawn`."""
    log_q = np.log(q)
    return losses.sampled_softmax(
        scores[[positive]],
        scores[drawn][None, :],
        log_q[[positive]] if correct == "both" else None,
        None if correct == "none" else log_q[drawn],
        (np.asarray(drawn) == positive)[None, :] if remove else None,
    ).numpy()[0]


def gradient_of(positive, drawn, scores=SCORES, **options):
    variable = tf.Variable(scores)
    with tf.GradientTape() as tape:
        value = loss_of_variable(variable, positive, drawn, **options)
    return tf.convert_to_tensor(tape.gradient(value, variable)).numpy()


def loss_of_variable(scores, positive, drawn, *, correct="negatives", remove=True, q=Q):
    log_q, drawn = np.log(q), np.asarray(drawn)
    return losses.sampled_softmax(
        tf.gather(scores, [positive]),
        tf.gather(scores, drawn),
        log_q[[positive]] if correct == "both" else None,
        None if correct == "none" else log_q[drawn],
        (drawn == positive)[None, :] if remove else None,
    )


# --- values ---------------------------------------------------------------------------------


def test_by_hand():
    # Negatives drawn with Q = 1/4 and 1/2, m = 2: weights 1 / (2 * 1/4) = 2 and 1.
    value = losses.sampled_softmax(
        np.array([np.log(3.0)]),
        np.log([[1.0, 4.0]]),
        negative_log_q=np.log([0.25, 0.5]),
    )
    assert value.numpy() == pytest.approx([np.log((3 + 2 * 1 + 1 * 4) / 3)])


@pytest.mark.parametrize("correct", ["none", "negatives", "both"])
@pytest.mark.parametrize("remove", [True, False])
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_every_variant_equals_its_formula(correct, remove, drawn, positive):
    weight = np.ones(4) if correct == "none" else 1 / (len(drawn) * Q)
    first = np.exp(SCORES[positive]) * (weight[positive] if correct == "both" else 1)
    rest = sum(weight[j] * np.exp(SCORES[j]) for j in drawn if not (remove and j == positive))
    assert loss_of(SCORES, positive, drawn, correct=correct, remove=remove) == pytest.approx(
        np.log((first + rest) / first), rel=1e-12
    )


@pytest.mark.parametrize("positive", range(4))
def test_unbiased_for_any_number_of_draws(positive):
    """Every pair of draws, weighted by its probability: exp(loss) averages to 1 / softmax."""
    mean = sum(
        Q[list(pair)].prod() * np.exp(loss_of(SCORES, positive, list(pair)))
        for pair in itertools.product(range(4), repeat=2)
    )
    assert mean == pytest.approx(1 / softmax(SCORES)[positive], rel=1e-12)


@pytest.mark.parametrize(
    ("correct", "remove", "right"),
    [("both", False, True), ("both", True, False), ("negatives", True, False)],
)
def test_which_variant_has_its_minimum_at_the_truth(correct, remove, right):
    """Every choice and every pair of draws, weighted: the mean gradient at the true scores."""
    mean = sum(
        softmax(SCORES)[positive]
        * Q[list(pair)].prod()
        * gradient_of(positive, list(pair), correct=correct, remove=remove)
        for positive in range(4)
        for pair in itertools.product(range(4), repeat=2)
    )
    assert (np.abs(mean).max() < 1e-12) == right


@pytest.mark.parametrize("positive", range(4))
def test_every_item_drawn_once_is_the_full_softmax(positive):
    uniform, everything = np.full(4, 0.25), np.arange(4)
    value = loss_of(SCORES, positive, everything, q=uniform)
    assert value == pytest.approx(-log_softmax(SCORES)[positive], rel=1e-12)
    given = gradient_of(positive, everything, q=uniform)
    np.testing.assert_allclose(given, softmax(SCORES) - np.eye(4)[positive], atol=1e-12)


@pytest.mark.parametrize("remove", [True, False])
def test_equals_tensorflow(remove):
    rng = np.random.default_rng(0)
    n, d, m, b = 30, 5, 20, 6
    weights = rng.normal(size=(n, d)).astype(np.float32)
    users = rng.normal(size=(b, d)).astype(np.float32)
    q = rng.dirichlet(np.ones(n)).astype(np.float32)
    # TensorFlow removes one copy only of a hit drawn twice, so hits are removed without repeats.
    drawn, positive = rng.choice(n, m, replace=not remove), rng.integers(0, n, b)
    theirs = tf.nn.sampled_softmax_loss(
        weights,
        np.zeros(n, np.float32),
        positive[:, None],
        users,
        m,
        n,
        sampled_values=(drawn, m * q[positive][:, None], m * q[drawn]),
        remove_accidental_hits=remove,
    )
    hits = drawn[None, :] == positive[:, None]
    ours = losses.sampled_softmax(
        (users * weights[positive]).sum(axis=1),
        users @ weights[drawn].T,
        np.log(q[positive]),
        np.log(q[drawn]),
        hits if remove else None,
    )
    assert hits.any()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# --- what many draws lead to ----------------------------------------------------------------


def exact_draws(m=4000):
    """Each item as often as expected: draws without the noise."""
    return np.repeat(np.arange(4), (m * Q).astype(int))


@pytest.mark.parametrize(
    ("correct", "remove", "near"),
    [
        ("negatives", True, True),
        ("both", False, True),
        ("both", True, False),
        ("negatives", False, False),
        ("none", False, False),
        ("none", True, False),
    ],
)
def test_which_variants_reach_the_gradient_of_the_full_softmax(correct, remove, near):
    full = softmax(SCORES) - np.eye(4)[0]
    given = gradient_of(0, exact_draws(), correct=correct, remove=remove)
    assert (np.abs(given - full).max() < 1e-3) == near


def test_trap_a_popular_positive_is_counted_too_little():
    m = 4000
    shrunk = np.exp(SCORES[0]) / (m * Q[0])
    share = shrunk / (shrunk + np.exp(SCORES[1:]).sum())
    given = gradient_of(0, exact_draws(m), correct="both", remove=True)
    assert given[0] == pytest.approx(share - 1, rel=1e-9)
    assert share < 0.01 < softmax(SCORES)[0]


def test_signs_uncorrected_learns_pmi_and_corrected_learns_shares():
    """Batches that hold three items in the shares .5, .3, .2, for users who are all alike."""
    items = np.repeat([0, 1, 2], [50, 30, 20])
    shares = np.array([0.5, 0.3, 0.2])

    def slope(scores, log_q):
        table = tf.Variable(np.asarray(scores, dtype=np.float64)[:, None])
        with tf.GradientTape() as tape:
            rows = losses.in_batch_softmax(
                tf.ones((100, 1), "float64"), tf.gather(table, items), items, log_q
            )
            value = tf.reduce_mean(rows)
        return np.abs(tf.convert_to_tensor(tape.gradient(value, table)).numpy()).max()

    ln_q = np.log(shares)[items]
    assert slope(np.zeros(3), None) < 1e-12 < 0.05 < slope(np.log(shares), None)
    assert slope(np.log(shares), ln_q) < 1e-12 < 0.05 < slope(np.zeros(3), ln_q)


# --- in-batch -------------------------------------------------------------------------------


def batch(seed=0, b=7, d=3):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, b)
    return rng.normal(size=(b, d)), rng.normal(size=(b, d)), ids, np.log(Q)[ids]


@pytest.mark.parametrize("corrected", ["none", "both", "negatives"])
@pytest.mark.parametrize("hits", ["keep", "remove"])
def test_in_batch_equals_a_plain_loop(hits, corrected):
    user, item, ids, log_q = batch()
    given = losses.in_batch_softmax(
        user,
        item,
        ids,
        None if corrected == "none" else log_q,
        hits,
        correct_positive=corrected == "both",
    )
    s, m = user @ item.T, len(ids) - 1
    for i, value in enumerate(given.numpy()):
        others = [j for j in range(m + 1) if j != i and not (hits == "remove" and ids[j] == ids[i])]
        lower = np.zeros(m + 1) if corrected == "none" else np.log(m) + log_q
        mine = s[i, i] - (lower[i] if corrected == "both" else 0)
        rest = s[i, others] - lower[others]
        assert value == pytest.approx(logsumexp([mine, *rest]) - mine, rel=1e-10)


@pytest.mark.parametrize("correct_positive", [True, False])
def test_padding_in_a_batch_is_as_if_it_were_not_there(correct_positive):
    user, item, ids, log_q = batch()
    real = np.array([1, 0, 1, 1, 0, 1, 1])
    whole = user[real == 1], item[real == 1], ids[real == 1], log_q[real == 1]
    alone = losses.in_batch_softmax(*whole, "remove", correct_positive)
    user[real == 0], item[real == 0], ids[real == 0] = np.nan, np.inf, 0
    u, v = tf.Variable(user), tf.Variable(item)
    with tf.GradientTape() as tape:
        padded = losses.in_batch_softmax(u, v, ids, log_q, "remove", correct_positive, mask=real)
    np.testing.assert_allclose(padded.numpy()[real == 1], alone, rtol=1e-12)
    assert (padded.numpy()[real == 0] == 0).all()
    for slope in tape.gradient(padded, (u, v)):
        assert np.isfinite(slope).all()
        assert (slope.numpy()[real == 0] == 0).all()
        assert (np.abs(slope.numpy()[real == 1]).max(axis=1) > 0).all()


# --- corners --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rare_items_are_not_clipped(dtype):
    q = np.array([1e-12, 1e-3])
    value = losses.sampled_softmax(
        np.zeros(1, dtype), np.zeros((1, 1), dtype), np.log(q[:1]), np.log(q[1:])
    ).numpy()
    # odds of the positive: (1 / 1e-12) / (1 / 1e-3) = 1e9, so the loss is ln(1 + 1e-9)
    assert value.dtype == dtype
    assert value == pytest.approx([np.log1p(1e-9)], rel=1e-5)


def test_masked_rows_cost_nothing_and_send_no_gradient():
    s, t = tf.Variable([1.0, np.nan]), tf.Variable([[0.5, 0.2], [np.inf, np.nan]])
    with tf.GradientTape() as tape:
        value = losses.sampled_softmax(s, t, negative_log_q=np.log([0.5, 0.2]), mask=[1, 0])
    alone = losses.sampled_softmax([1.0], [[0.5, 0.2]], negative_log_q=np.log([0.5, 0.2]))
    assert value.numpy().tolist() == [pytest.approx(float(alone[0])), 0.0]
    ds, dt = tape.gradient(value, (s, t))
    assert ds.numpy()[1] == 0
    assert dt.numpy()[1].tolist() == [0, 0]
    assert ds.numpy()[0] == pytest.approx(-dt.numpy()[0].sum())


def test_a_row_whose_negatives_are_all_hits_has_no_loss_and_a_finite_gradient():
    assert loss_of(SCORES, 1, [1, 1]) == 0
    assert gradient_of(1, [1, 1]).tolist() == [0, 0, 0, 0]


def test_huge_logits_and_half_precision_stay_finite():
    value = losses.sampled_softmax([1e4, -1e4], [[-1e4], [1e4]]).numpy()
    assert value == pytest.approx([0, 2e4])
    half = losses.sampled_softmax(np.ones(2, "float16"), np.ones((2, 3), "float16"))
    assert half.numpy() == pytest.approx([np.log(4)] * 2)
    assert half.numpy().dtype == np.float32


def test_shared_negatives_and_explicit_draws():
    shared = losses.sampled_softmax(SCORES[:2], SCORES[2:])
    rows = losses.sampled_softmax(SCORES[:2], np.tile(SCORES[2:], (2, 1)))
    np.testing.assert_array_equal(shared, rows)
    half = losses.sampled_softmax([0.0], [[0.0]], negative_log_q=np.log([0.5]), n_draws=10)
    assert half.numpy() == pytest.approx([np.log(1 + 1 / 5)])


def test_works_in_a_graph_of_unknown_batch_size():
    user, item, ids, log_q = batch()
    spec = [tf.TensorSpec([None, 3], "float64")] * 2
    spec += [tf.TensorSpec([None], "int64"), tf.TensorSpec([None], "float64")]
    compiled = tf.function(
        lambda *given: losses.in_batch_softmax(*given, "remove", False), input_signature=spec
    )
    eager = losses.in_batch_softmax(user, item, ids, log_q, "remove", False)
    np.testing.assert_allclose(compiled(user, item, ids, log_q), eager, rtol=1e-12)


ONE, TWO = np.zeros(1), np.zeros((1, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.sampled_softmax(TWO, TWO), r"positive_logits must have the shape \(B,\)"),
        (lambda: losses.sampled_softmax(np.zeros(3), np.zeros((2, 2))), "has 2 rows"),
        (lambda: losses.sampled_softmax(ONE, TWO, ONE - 1), "negative_log_q is not"),
        (lambda: losses.sampled_softmax(ONE, TWO, None, [0.5, 0.2]), "ln Q, not Q"),
        (lambda: losses.sampled_softmax(ONE, TWO, None, [-1, -np.inf]), "must hold finite"),
        (lambda: losses.sampled_softmax(ONE, TWO, None, [-1, np.nan]), "must hold finite"),
        (lambda: losses.sampled_softmax(ONE, TWO, None, [-1.0] * 3), "3 values"),
        (lambda: losses.sampled_softmax(ONE, TWO, [-1, -1], [-1, -1]), "positive_log_q has"),
        (lambda: losses.sampled_softmax(ONE, TWO, hits=[True, False]), "hits has the shape"),
        (lambda: losses.sampled_softmax(ONE, TWO, mask=[1, 1]), "mask has the shape"),
        (lambda: losses.in_batch_softmax(TWO, TWO, [0], hits="drop"), "'keep' or 'remove'"),
        (lambda: losses.in_batch_softmax(TWO, np.zeros((2, 2)), [0]), "user has the shape"),
        (lambda: losses.in_batch_softmax(TWO, TWO, [0, 1]), "item_ids has 2 rows"),
        (lambda: losses.in_batch_softmax(ONE, ONE, [0]), r"shape \(B, d\)"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(RecbalError, match=message):
        call()
