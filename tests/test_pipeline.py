"""The pipeline ends with the same model after a kill anywhere, and its features know no future."""

import ibis
import numpy as np
import pandas as pd
import pytest

from recbal_utils import _gather, evaluate, export, pipeline, rich_features
from recbal_utils.client import Service
from recbal_utils.errors import RecbalError

NAMES = ("noise", "weak", "strong")
ATTEMPTS = {"few": NAMES[:2], "all": NAMES}
ANY = {"roc_auc": (0, 1)}


def made_log(n, seed, keep_rate=1.0):
    """Rows of a log with a rate of about one in fifty; `strong` decides most."""
    rng = np.random.default_rng(seed)
    X = rng.exponential(1, (n, 3)).astype(np.float32)
    p = 1 / (1 + np.exp(-(0.4 * X[:, 1] + 1.8 * X[:, 2] - 7.3)))
    y = (rng.random(n) < p).astype(np.int8)
    kept = (y == 1) | (rng.random(n) < keep_rate)
    weight = np.where(y == 1, 1.0, 1 / keep_rate)
    return pipeline.Rows(X[kept], y[kept], weight[kept], NAMES)


def settings(**changes):
    given = {"attempts": ATTEMPTS, "bar": ANY, "trials": 2, "search_rows": 1500}
    return pipeline.Settings(**{**given, **changes})


def run(folder, progress=lambda line: None, **changes):
    log = made_log(20_000, 0, keep_rate=0.5), made_log(20_000, 1)
    return pipeline.Pipeline(settings(**changes), folder, progress=progress).run(*log)


def test_exported_model_is_right_at_the_natural_rate(tmp_path):
    outcome = run(tmp_path, epochs=8, search_epochs=8)
    fresh = made_log(60_000, 2)
    model = export.load_model(outcome.models[0])
    p = pipeline.score(model, fresh.columns(model.feature_names))
    assert 0.75 < evaluate.ratio(fresh.y, p) < 1.3
    z = model.log_odds(fresh.columns(model.feature_names)) - model.log_odds_shift
    assert evaluate.ratio(fresh.y, 1 / (1 + np.exp(-z))) > 3


def test_goes_back_where_the_bar_is_missed(tmp_path):
    bar = {"roc_auc": (0.75, 1)}
    outcome = run(tmp_path, bar=bar)
    assert outcome.rounds["met"].tolist() == [False, True]
    assert outcome.rounds["attempt"].tolist() == list(ATTEMPTS)
    assert export.load_model(outcome.models[0]).feature_names == NAMES


def test_exports_nothing_below_the_bar(tmp_path):
    outcome = run(tmp_path, bar={"roc_auc": (0.9999, 1)})
    assert not outcome.exported
    assert len(outcome.rounds) == len(ATTEMPTS)
    assert not list(tmp_path.rglob("*.npz"))


BAR = {"roc_auc": (0.75, 1)}
STEPS = 1 + 2 * (2 + 1) + 1  # diagnosis, two rounds of two trials and a verdict, a training


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    lines = []
    outcome = run(tmp_path_factory.mktemp("whole"), lines.append, bar=BAR)
    assert len(lines) == STEPS
    return outcome


def test_same_result_when_killed_after_every_step(tmp_path, whole):
    said = []

    def stop(line):
        said.append(line)
        if line.endswith(": done") or line.startswith("trained"):
            raise KeyboardInterrupt

    for _ in range(6):  # a diagnosis, four trials, a training
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, stop, bar=BAR)
    outcome = run(tmp_path, stop, bar=BAR)
    pd.testing.assert_frame_equal(outcome.trials, whole.trials)
    versions = [export.load_model(of.models[0]).model_version for of in (outcome, whole)]
    assert versions[0] == versions[1]
    done = [line for line in said if line.endswith(": done")]
    assert len(done) == len(set(done)), "a step was done twice"


def test_every_positive_is_kept_and_the_shift_undoes_the_rest():
    train = made_log(20_000, 0, keep_rate=0.5)
    found = pipeline.diagnose(train, settings(negatives=4))
    rows = pipeline.balanced(train, found["kept_negatives"], 0)
    assert train.y[rows].sum() == train.y.sum()
    sampled = train.y[rows].mean()
    odds = np.log(sampled / (1 - sampled)) + found["log_odds_shift"]
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(found["rate"])


def test_nothing_is_dropped_where_classes_are_near():
    train = made_log(4_000, 0)
    even = pipeline.Rows(train.X, (train.X[:, 2] > 1).astype(np.int8), train.weight, NAMES)
    found = pipeline.diagnose(even, settings())
    assert found["kept_negatives"] == (even.y == 0).sum()
    assert found["log_odds_shift"] == 0


def test_wrong_rows_are_named(tmp_path):
    log = made_log(2_000, 0)
    one = pipeline.Rows(log.X, np.zeros_like(log.y), log.weight, NAMES)
    with pytest.raises(RecbalError, match="one class"):
        pipeline.Pipeline(settings(), tmp_path).run(one, log)
    lacking = settings(attempts={"more": (*NAMES, "absent")})
    with pytest.raises(RecbalError, match="absent"):
        pipeline.Pipeline(lacking, tmp_path).run(log, log)
    with pytest.raises(RecbalError, match="test"):
        pipeline.predictions("tomorrow")


def test_exported_model_answers_over_http_as_it_scores_offline(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.exponential(5, (6000, len(pipeline.FEATURES))).astype(np.float32)
    y = (rng.random(6000) < 1 / (1 + np.exp(5 - 0.2 * X[:, 0] - 0.2 * X[:, -1]))).astype(np.int8)
    log = pipeline.Rows(X[:4000], y[:4000], np.ones(4000), pipeline.FEATURES)
    wide = settings(attempts={"all": pipeline.FEATURES}, trials=1)
    outcome = pipeline.Pipeline(wide, tmp_path, progress=lambda line: None).run(log, log)
    model = export.load_model(outcome.models[0])
    offline = pipeline.score(model, X[4000:])
    with Service(outcome.models[0], "--max-candidates", "3000", "--max-bytes", "9000000") as served:
        answer = served.score("a visit", range(2000), X[4000:], model.feature_names)
    assert answer["model_version"] == model.model_version
    np.testing.assert_allclose(answer["probabilities"], offline, rtol=0, atol=1e-6)
    assert np.ptp(offline) > 0.1


# --- features -----------------------------------------------------------------------------------

LAST = 9


@pytest.fixture(scope="module")
def shop():
    """A small random log: purchases, promotions, visits, products."""
    rng = np.random.default_rng(3)
    week = pd.DataFrame({"week": np.arange(1, LAST + 1)})
    visits = pd.DataFrame({"household_id": np.arange(1, 7)}).merge(week, how="cross")
    visits["store_id"] = rng.integers(1, 3, len(visits))
    items = pd.DataFrame({"product_id": np.arange(1, 9)})
    bought = visits.merge(items, how="cross")[rng.random(len(visits) * 8) < 0.25]
    money = {f"{n}_cents": rng.integers(0, 900, len(bought)) for n in ("spend", "discount", "paid")}
    bought = bought.assign(quantity=rng.integers(1, 4, len(bought)), trips=1, **money)
    shelves = week.merge(pd.DataFrame({"store_id": [1, 2]}), how="cross").merge(items, how="cross")
    promoted = shelves[rng.random(len(shelves)) < 0.6]
    promoted = promoted.assign(
        display=rng.choice(["0", "3", "A"], len(promoted)),
        mailer=rng.choice(["0", "D"], len(promoted)),
    )
    products = items.assign(
        product_type=["a", "a", "b", "b", "c", "c", None, None],
        product_category=["x", "x", "x", "x", "y", "y", None, None],
        manufacturer_id=[1, 2, 1, 2, 1, 1, 2, 2],
    )
    return {"bought": bought, "promoted": promoted, "visits": visits, "products": products}


def known(shop):
    """All that features of the shop are looked up in."""
    tables = {name: ibis.memtable(frame) for name, frame in shop.items()}

    def computed(table):
        return ibis.memtable(table.execute())

    ids = computed(rich_features.product_ids(tables["products"]))
    bought, promoted = computed(rich_features.with_ids(tables["bought"], ids)), tables["promoted"]
    placed = computed(rich_features.placements(promoted, tables["visits"], bought))
    shopped = computed(rich_features.shopping(tables["visits"], bought, promoted))
    past = {
        "ids": ids,
        "promoted": promoted.group_by("store_id", "week").agg(n_promoted=lambda t: t.count()),
        "calendar": promoted.group_by("product_id", "week").agg(
            stores=lambda t: t.store_id.nunique()
        ),
    }
    placed = rich_features.with_ids(placed, ids)
    for kind, source, make, groups in (
        ("bought", bought, rich_features.purchase_history, rich_features.BOUGHT),
        ("promoted", placed, rich_features.promotion_history, rich_features.PROMOTED),
        ("shopped", shopped, rich_features.shopping_history, rich_features.SHOPPED),
    ):
        past |= {f"{kind} {name}": computed(make(source, keys)) for name, keys in groups.items()}
    return past


def impressions(shop, weeks):
    rows = shop["visits"].merge(shop["promoted"], on=["store_id", "week"])
    rows = rows[rows["week"].isin(weeks)].astype({"display": "category", "mailer": "category"})
    return rows.sort_values(["week", "household_id", "product_id"], ignore_index=True)


def described(shop, *weeks):
    """All features of the impressions of some weeks."""
    rows = impressions(shop, weeks)
    X = np.empty((len(rows), len(rich_features.NUMERIC)), dtype=np.float32)
    _gather.fill(X, _gather.gather(rows, known(shop)), slice(None))
    return pd.concat([rows, pd.DataFrame(X, columns=list(rich_features.NUMERIC))], axis=1)


def test_features_equal_each_row_looked_up_by_itself(shop):
    weeks = range(3, LAST + 1)
    found = described(shop, *weeks)
    past, rows = known(shop), impressions(shop, weeks)
    words = {"display": str, "mailer": str}
    plain = ibis.memtable(rows.astype(words).assign(row=np.arange(len(rows))))
    plain = rich_features.with_ids(plain, past["ids"])
    seen = []
    for level in rich_features.LEVELS:
        one = level.compute(plain, past).execute().sort_values("row", ignore_index=True)
        names = list(level.names)
        pd.testing.assert_frame_equal(found[names], one[names].astype(np.float32), check_exact=True)
        seen += names
        assert found[names].to_numpy().any(), f"all of {names} are 0"
    assert seen == list(rich_features.NUMERIC)


def test_features_do_not_know_the_week_or_what_follows(shop):
    before = described(shop, 7)
    rng = np.random.default_rng(0)
    late = shop["bought"]["week"] >= 7
    other = shop["bought"][~late | (rng.random(len(late)) < 0.3)].copy()
    other.loc[other["week"] >= 7, ["quantity", "spend_cents"]] = 77
    later = shop["promoted"][shop["promoted"]["week"] <= 7]
    visits = shop["visits"][shop["visits"]["week"] <= 7]
    changed = described({**shop, "bought": other, "promoted": later, "visits": visits}, 7)
    pd.testing.assert_frame_equal(before, changed)


def test_features_do_know_the_week_before(shop):
    before = described(shop, 7)
    other = shop["bought"][shop["bought"]["week"] != 6]
    changed = described({**shop, "bought": other}, 7)
    assert (before != changed).any()[list(rich_features.NUMERIC)].sum() > 20


def test_features_equal_a_plain_count(shop):
    found = described(shop, 7)
    bought, promoted = shop["bought"], shop["promoted"]
    past = bought[bought["week"] < 7]
    shown = promoted.merge(shop["visits"], on=["store_id", "week"])
    shown = shown[shown["week"] < 7]
    won = shown.merge(past, on=["household_id", "store_id", "week", "product_id"])
    assert len(found) > 15
    for row in found.itertuples():
        pair = past[(past.household_id == row.household_id) & (past.product_id == row.product_id)]
        faded = (0.5 ** ((7 - pair["week"]) / rich_features.FAST)).sum()
        assert row.hp_fast == pytest.approx(faded, rel=1e-5)
        here = past[(past.store_id == row.store_id) & (past.product_id == row.product_id)]
        assert row.ps_slow == pytest.approx(
            (0.5 ** ((7 - here["week"]) / rich_features.SLOW)).sum(), rel=1e-5
        )
        conversions = (won.product_id == row.product_id).sum()
        impressions = (shown.product_id == row.product_id).sum()
        assert row.p_rate == pytest.approx(
            1000 * (conversions + 1) / (impressions + 1000), rel=1e-5
        )
        weeks = sorted(set(pair["week"]))
        due = (7 - weeks[-1]) * (len(weeks) - 1) / (weeks[-1] - weeks[0]) if weeks[1:] else 0
        assert row.hp_due == pytest.approx(due, rel=1e-5)
        trips = shop["visits"].query("week < 7 and household_id == @row.household_id")
        assert row.hs_share == pytest.approx((trips.store_id == row.store_id).mean(), rel=1e-5)
