"""The promotion log: its known counts, its samples, and what it says of bad input."""

import os

import numpy as np
import pandas as pd
import pytest
from common import data_cache
from ibis import _

from recbal_utils import _files, _journey, datasets, sampling
from recbal_utils.errors import RecbalError


@pytest.fixture(scope="session", autouse=True)
def shared_cache():
    """The cache that the book's build filled, unless the caller chose another."""
    os.environ["RECBAL_CACHE"] = data_cache()


@pytest.fixture(scope="module")
def training():
    return datasets.training_table()


@pytest.fixture(scope="module")
def test_visits():
    return datasets.visit_table()


def test_the_log_has_its_known_counts():
    log = datasets.promotion_log()
    counts = log.agg(n=log.count(), y=log.conversion.sum()).execute().iloc[0]
    assert (int(counts.n), int(counts.y)) == (318_957_363, 316_721)


def test_the_constants_typed_on_the_pages_hold():
    households = datasets.journey("transactions").household_id.nunique().execute()
    promoted_to = datasets.visits().household_id.nunique().execute()
    n_visits = datasets.visits().count().execute()
    assert (households, promoted_to, n_visits) == (2_469, 2_450, 86_611)


def test_the_log_is_one_row_an_impression():
    log = datasets.promotion_log(weeks=[30])
    distinct = log.select(*datasets.IMPRESSION_KEYS).distinct()
    assert int(distinct.count().execute()) == int(log.count().execute())
    assert set(log.conversion.value_counts().execute()["conversion"]) == {0, 1}


def test_source_tables_have_their_known_sizes():
    sizes = {
        "transactions": 1_469_307,
        "promotions": 20_940_529,
        "products": 92_331,
        "demographics": 801,
        "campaigns": 6_589,
        "coupon_redemptions": 2_102,
    }
    assert {name: int(datasets.journey(name).count().execute()) for name in sizes} == sizes


def test_cleaning_report_counts_every_row_it_touches():
    report = datasets.cleaning_report().set_index("step")
    touched = report["rows"].to_dict()
    assert touched["second row of a product, store and week dropped"] == 12_785
    assert touched["lines of quantity 0 are not conversions"] == 8_869
    assert touched["visits to stores without promotions left out"] == 88_326 - 86_611
    bought = report.loc["purchases of products not promoted are no conversions"]
    assert bought["of"] - bought["rows"] == 316_721
    assert (report["why"].str.len() > 10).all()


def test_of_two_promotion_rows_a_placement_is_kept_over_none():
    """Counted in pandas for one week, from the published file."""
    raw = datasets.journey("promotions").filter(lambda t: t.week == 23).execute()
    keys = ["product_id", "store_id"]
    doubled = raw[raw.duplicated(keys, keep=False)]
    assert len(doubled) > 0
    want = doubled.groupby(keys)[["display_location", "mailer_location"]].max()
    clean = datasets.promotions().filter(lambda t: t.week == 23).execute().set_index(keys)
    assert clean.index.is_unique
    assert len(clean) == len(raw) - len(doubled) / 2
    assert (clean.loc[want.index, ["display", "mailer"]].to_numpy() == want.to_numpy()).all()


def test_double_promotions_seldom_disagree_on_the_mailer():
    raw = datasets.journey("promotions").group_by("product_id", "store_id", "week")
    doubled = raw.agg(
        n=lambda t: t.count(),
        displays=lambda t: t.display_location.nunique(),
        mailers=lambda t: t.mailer_location.nunique(),
    ).filter(lambda t: t.n > 1)
    counts = doubled.agg(n=doubled.count(), mailers=(doubled.mailers > 1).sum()).execute()
    assert counts.iloc[0].tolist() == [12_785, 12_785 - 12_724]


def test_training_table_has_every_positive_and_a_share_of_negatives(training):
    log = datasets.promotion_log(weeks=datasets.TRAIN_WEEKS)
    counts = log.agg(n=log.count(), y=log.conversion.sum()).execute().iloc[0]
    assert training.conversion.sum() == counts.y == 132_550
    n = int(counts.n - counts.y)
    drawn = training[training.conversion == 0]
    assert abs(len(drawn) - 0.01 * n) < 4.5 * np.sqrt(n * 0.01 * 0.99)
    assert set(training.weight[training.conversion == 1]) == {1.0}
    assert set(drawn.weight) == {100.0}


def test_rows_are_unique_sorted_and_complete(training):
    keys = ["week", "household_id", "store_id", "product_id"]
    assert not training.duplicated(keys).any()
    order = np.lexsort([training[key] for key in reversed(keys)])
    assert (order == np.arange(len(training))).all()
    assert not training.isna().any(axis=None)
    numbers = training[list(datasets.FEATURES)].to_numpy()
    assert np.isfinite(numbers).all()
    assert (numbers >= 0).all()


def test_features_of_the_table_are_as_of_the_week_before(training):
    """Recounted in pandas from the published lines, for rows drawn by hand of positives."""
    lines = datasets.journey("transactions").filter(lambda t: t.quantity > 0).execute()
    by_household = dict(tuple(lines.groupby("household_id")))
    sample = training[training.conversion == 1].sample(60, random_state=1)
    for row in sample.itertuples():
        mine = by_household[row.household_id]
        mine = mine[mine.week < row.week]
        pair = mine[mine.product_id == row.product_id]
        assert row.hp_purchases == pair.week.nunique()
        assert row.h_products == mine.product_id.nunique()
        assert row.h_spend_per_trip == pytest.approx(
            mine.sales_value.sum() / mine.basket_id.nunique() if len(mine) else 0, rel=1e-4
        )
        assert row.hp_recency == pytest.approx(
            1 / (row.week - pair.week.max()) if len(pair) else 0, rel=1e-5
        )


def test_no_feature_alone_tells_the_label(training):
    """A copy of the label would rank perfectly; the best honest feature, recent sales, .906."""
    from sklearn.metrics import roc_auc_score

    part = training.sample(200_000, random_state=0)
    scores = {name: roc_auc_score(part.conversion, part[name]) for name in datasets.FEATURES}
    assert max(max(score, 1 - score) for score in scores.values()) < 0.95


def test_test_visits_are_whole_and_at_the_natural_rate(test_visits):
    promoted = datasets.promotions().filter(lambda t: t.week.isin(datasets.TEST_WEEKS))
    sizes = promoted.group_by("store_id", "week").agg(n=promoted.count()).execute()
    sizes = sizes.set_index(["store_id", "week"]).n
    seen = test_visits.groupby("visit").agg(
        store_id=("store_id", "first"), week=("week", "first"), n=("product_id", "nunique")
    )
    expected = sizes.loc[list(zip(seen.store_id, seen.week, strict=True))].to_numpy()
    assert (seen.n.to_numpy() == expected).all()
    assert len(test_visits) == expected.sum()


def test_test_visits_are_at_least_their_share(test_visits):
    week = datasets.visits().filter(lambda t: t.week.isin(datasets.TEST_WEEKS))
    n = int(week.count().execute())
    kept = test_visits.visit.nunique()
    assert abs(kept - 0.16 * n) < 4.5 * np.sqrt(n * 0.16 * 0.84)
    keys = list(datasets.VISIT_KEYS)
    assert kept == len(test_visits[keys].drop_duplicates())


def test_every_conversion_of_a_test_visit_is_there(test_visits):
    keys = list(datasets.VISIT_KEYS)
    log = datasets.promotion_log(weeks=datasets.TEST_WEEKS)
    bought = log.filter(log.conversion == 1).select(*datasets.IMPRESSION_KEYS).execute()
    mine = bought.merge(test_visits[keys].drop_duplicates(), on=keys)
    assert len(mine) == test_visits.conversion.sum()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_keys_whatever_the_number_of_threads(training, threads):
    """Chosen again without the shortcut of mixing the visit's keys first."""
    connection = datasets.connect()
    before = connection.raw_sql("SELECT current_setting('threads')").fetchone()[0]
    connection.raw_sql(f"SET threads = {threads}")
    try:
        log = datasets.promotion_log(weeks=[25])
        rows = sampling.sample_negatives(
            log, datasets.LABEL, datasets.IMPRESSION_KEYS, 0.01
        ).execute()
    finally:
        connection.raw_sql(f"SET threads = {before}")
    keys = list(datasets.IMPRESSION_KEYS)
    expected = training[training.week == 25]
    assert set(map(tuple, rows[keys].to_numpy())) == set(map(tuple, expected[keys].to_numpy()))


def test_another_seed_keeps_other_negatives_and_the_same_positives(training):
    other = datasets.training_table(weeks=[25], seed=1)
    first = training[training.week == 25]
    keys = list(datasets.IMPRESSION_KEYS)
    shared = first[[*keys, "conversion"]].merge(other[keys], on=keys)
    assert shared.conversion.sum() == first.conversion.sum() == other.conversion.sum()
    negatives = (first.conversion == 0).sum()
    both = (shared.conversion == 0).sum()
    assert abs(both - 0.01 * negatives) < 4.5 * np.sqrt(0.01 * negatives)


def test_natural_sample_keeps_positives_at_the_same_rate():
    sample = datasets.training_table(keep_positives=False)
    assert set(sample.weight) == {100.0}
    assert abs(sample.conversion.sum() - 1325.5) < 4.5 * np.sqrt(1325.5)


def test_placement_codes_are_the_documented_ones(training):
    assert set(training.display.cat.categories) == set(datasets.DISPLAY)
    assert set(training.mailer.cat.categories) == set(datasets.MAILER)
    assert (training.on_display == (training.display != "0")).all()


@pytest.mark.parametrize(
    ("policy", "campaign", "clicks"),
    [(p, c, None) for p in ("random", "bts") for c in ("all", "men", "women")],
)
def test_open_bandit_samples(policy, campaign, clicks):
    frame = datasets.open_bandit(policy, campaign)
    assert len(frame) == 10_000
    assert 38 <= frame.click.sum() <= 69
    assert frame.propensity_score.between(0, 1, inclusive="right").all()
    if policy == "random":
        assert np.ptp(frame.propensity_score) == 0


def cut_short(tmp_path):
    path = tmp_path / "transactions.parquet"
    whole = _journey.journey_file("campaigns").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def without_a_column(tmp_path):
    path = tmp_path / "transactions.parquet"
    pd.DataFrame({"household_id": [1]}).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda tmp: datasets.journey("baskets"), "no table 'baskets'; there are campaigns"),
        (lambda tmp: datasets.promotion_log(weeks=[0]), r"weeks is \(0,\); give one or more"),
        (lambda tmp: datasets.promotion_log(weeks=[]), "give one or more whole numbers"),
        (lambda tmp: datasets.promotion_log(weeks=3), "weeks is 3; give whole numbers"),
        (lambda tmp: datasets.training_table(weeks=["x"]), "give whole numbers from 1 to 53"),
        (lambda tmp: datasets.training_table(keep_rate=0), "keep_rate is 0"),
        (lambda tmp: datasets.visit_table(share=2), "share is 2"),
        (lambda tmp: datasets.visit_table(weeks=[48, 49]), r"weeks \[49\] are closed"),
        (lambda tmp: datasets.training_table(weeks=[52]), "say open_closed_weeks=True"),
        (lambda tmp: datasets.open_bandit("greedy"), "policy is 'greedy'; choose one of random"),
        (lambda tmp: datasets.open_bandit(campaign="x"), "campaign is 'x'; choose one of all"),
        (lambda tmp: _files.package_file("no_such_package", "a"), "no_such_package is not ins"),
        (lambda tmp: _files.package_file("obp", "none.csv"), "obp has no file none.csv"),
        (lambda tmp: _files.read_parquet(cut_short(tmp)), "cannot be read as parquet"),
        (
            lambda tmp: _files.read_parquet(without_a_column(tmp), ["household_id", "week"]),
            "transactions.parquet lacks the column week",
        ),
    ],
)
def test_bad_input_gives_one_clear_sentence(call, says, tmp_path):
    with pytest.raises(RecbalError, match=says) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_comments_do_not_decide_the_cache_but_code_does():
    digest = _journey._logic_digest
    plain = "def f():\n    return 1\n"
    assert digest(plain) == digest(
        '"""Doc."""\ndef f():\n    """Say."""\n    # why\n    return 1\n'
    )
    assert digest(plain) != digest(plain.replace("1", "2"))


# ---- segments --------------------------------------------------------------------------


def test_segments_follow_the_training_weeks_alone():
    bought = datasets.purchases().filter(_.week.isin(datasets.TRAIN_WEEKS)).execute()
    promoted = datasets.promotions().filter(_.week.isin(datasets.TRAIN_WEEKS))
    catalogue = promoted.select("product_id").distinct().execute()["product_id"]
    counts = bought["product_id"].value_counts().reindex(catalogue, fill_value=0)
    rows = pd.DataFrame({"product_id": [*catalogue, -1], "household_id": 1})
    found = datasets.segments(rows)
    tier = found["tier"].to_numpy()
    edge = -(-len(catalogue) // 5)
    assert (tier == "head").sum() == edge
    heads = counts.to_numpy()[tier[:-1] == "head"]
    assert heads.min() >= counts.to_numpy()[tier[:-1] == "mid"].max()
    assert set(tier[:-1][counts.to_numpy() == 0]) == {"tail"}
    assert tier[-1] == "tail"


def test_heavy_households_visit_most():
    made = datasets.visits().filter(_.week.isin(datasets.TRAIN_WEEKS)).execute()
    trips = made["household_id"].value_counts()
    rows = pd.DataFrame(
        {"product_id": 1, "household_id": [*trips.index, -1]}, index=range(5, 5 + len(trips) + 1)
    )
    found = datasets.segments(rows)
    assert found.index.equals(rows.index)
    kind = found["household"].to_numpy()[:-1]
    assert trips.to_numpy()[kind == "heavy"].min() >= trips.to_numpy()[kind == "middle"].max()
    assert trips.to_numpy()[kind == "light"].max() <= trips.to_numpy()[kind == "middle"].min()
    assert (kind == "heavy").mean() == pytest.approx(0.25, abs=0.001)
    assert found["household"].iloc[-1] == "light"


def test_chosen_columns_of_a_table_are_those_of_the_whole(test_visits):
    names = ["p_price", "mailer", "week"]
    found = datasets.visit_table(columns=names)
    pd.testing.assert_frame_equal(found, test_visits[[*names, "visit"]])
    with pytest.raises(RecbalError, match="no column colour"):
        datasets.visit_table(columns=["colour"])


def test_a_visit_is_a_run_of_rows_of_a_household_in_a_store(test_visits):
    keys = list(datasets.VISIT_KEYS)
    first = test_visits.drop_duplicates("visit")
    assert first["visit"].tolist() == list(range(len(first)))
    assert not first.duplicated(keys).any()
    same = test_visits[keys].to_numpy() == first[keys].to_numpy()[test_visits["visit"]]
    assert same.all()


def test_matrix_holds_the_features_in_order():
    table = datasets.visit_table()
    found = datasets.matrix(table.iloc[:5])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 3], table[datasets.FEATURES[3]].iloc[:5], rtol=1e-6)
