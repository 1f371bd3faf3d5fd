"""MovieLens-100k is read as it stands, and split so that nothing of the future is known."""

import numpy as np
import pandas as pd
import pytest

from recbal_utils import movielens
from recbal_utils.errors import RecbalError

FILMS = """item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
10\tThe Shop\t1995\tComedy Drama
20\tTwo Tails\tV\tunknown
30\tLate Train\t1990\tDrama
"""
RATINGS = """user_id:token\titem_id:token\trating:float\ttimestamp:float
2\t10\t5\t300
1\t10\t4\t100
1\t20\t2\t100
1\t30\t1\t200
2\t20\t3\t400
"""


@pytest.fixture
def folder(tmp_path):
    def write(ratings=RATINGS, films=FILMS):
        (tmp_path / "ml-100k.inter").write_text(ratings, encoding="utf-8")
        (tmp_path / "ml-100k.item").write_text(films, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture(scope="module")
def data():
    return movielens.load()


def at(second):
    return pd.Timestamp(second, unit="s")


def test_what_is_read(folder):
    data = movielens.read(folder())
    assert data.ratings["film"].tolist() == [0, 1, 2, 0, 1]
    assert data.ratings["stars"].tolist() == [4, 2, 1, 5, 3]
    assert data.ratings["time"].is_monotonic_increasing
    assert list(data.genres) == ["Comedy", "Drama"]
    assert data.genres.to_numpy().tolist() == [[True, True], [False, False], [False, True]]
    assert data.films["year"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        (RATINGS + "3\t99\t4\t500\n", "line 7: a rating must have 1 to 5 stars and a film"),
        (RATINGS + "3\t10\t6\t500\n", "line 7: a rating must have 1 to 5 stars"),
        (RATINGS + "2\t20\t3\t500\n", "line 7: this user has rated this film before"),
        (RATINGS.replace("timestamp:float", "when"), "ml-100k.inter lacks the column timestamp"),
    ],
)
def test_damaged_files_are_refused(folder, ratings, said):
    with pytest.raises(RecbalError, match=said):
        movielens.read(folder(ratings))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(RecbalError, match=r"ml-100k\.item cannot be read"):
        movielens.read(tmp_path)


def test_the_real_data(data):
    assert len(data.ratings) == 100_000
    assert data.ratings["user"].nunique() == 943
    assert data.genres.shape == (1_682, 18)
    assert data.ratings.groupby("user").size().min() == 20


def test_who_rated_what(folder):
    data = movielens.read(folder())
    assert movielens.rated(data.ratings, 3).toarray().tolist() == [[1, 1, 1], [1, 1, 0]]
    liked = movielens.rated(data.ratings, 3, least_stars=4)
    assert liked.toarray().tolist() == [[1, 0, 0], [1, 0, 0]]


def test_a_question_keeps_past_and_future_apart(data):
    start, stop = movielens.CHOOSE_START, movielens.TEST_START
    asked = movielens.question(data, start, stop)
    assert asked.history.multiply(asked.relevant).nnz == 0
    times = data.ratings.set_index(["user", "film"])["time"]
    for row in range(0, len(asked.users), 10):
        user = asked.users[row]
        known = times.loc[[(user, film) for film in asked.history[[row]].indices]]
        later = times.loc[[(user, film) for film in asked.relevant[[row]].indices]]
        assert known.max() < later.min()
        assert later.min() >= start
        assert later.max() < stop


def test_a_question_asks_of_films_known_before_the_period_only(data):
    asked = movielens.question(data, movielens.TEST_START)
    before = data.ratings.loc[data.ratings["time"] < movielens.TEST_START, "film"]
    assert set(asked.relevant.indices) <= set(before)
    assert asked.left_out > 0


def test_ratings_of_one_second_stay_on_one_side(folder):
    lines = "".join(f"3\t{film}\t4\t{t}\n" for film, t in ((10, 500), (20, 500), (30, 600)))
    data = movielens.read(folder(RATINGS + lines))
    asked = movielens.question(data, at(450), least=3)
    assert asked.history.toarray().tolist() == [[True, True, False]]
    assert asked.relevant.toarray().tolist() == [[False, False, True]]


def test_an_empty_period_is_told(data):
    with pytest.raises(RecbalError, match="no user has 10 ratings"):
        movielens.question(data, pd.Timestamp("1999-01-01"), pd.Timestamp("1999-02-01"))


def test_puzzles_hide_what_is_to_be_found(data):
    bought = movielens.rated(data.ratings, 1_682)[:50]
    left, pairs = movielens.puzzles(bought, times=3, seed=1)
    assert left.shape == (150, 1_682)
    assert (left[pairs[:, 0], pairs[:, 1]] == 0).all()
    both = (left > 0).sum() + len(pairs)
    assert both == 3 * bought.nnz
    again = movielens.puzzles(bought, times=3, seed=1)
    np.testing.assert_array_equal(again[1], pairs)


def test_scaled_rows_have_length_one(data):
    rows = movielens.scaled(movielens.rated(data.ratings, 1_682)[:20] > 0)
    np.testing.assert_allclose((rows**2).sum(axis=1), 1, rtol=1e-5)


def test_star_features_know_the_past_only(folder):
    ratings = movielens.read(folder()).ratings
    found = movielens.star_features(ratings, prior=1.0)
    np.testing.assert_allclose(found[0], [3, 3, 0, 0])
    np.testing.assert_allclose(found[1], [3, 3, 0, 0])  # the same second is not the past
    np.testing.assert_allclose(found[2], [(4 + 2 + 3) / 3, 3, np.log(3), 0])
    np.testing.assert_allclose(found[3], [7 / 3, (4 + 7 / 3) / 2, 0, np.log(2)])


def test_star_features_do_not_change_with_later_ratings(data):
    whole = movielens.star_features(data.ratings)
    early = movielens.star_features(data.ratings.iloc[:5_000])
    np.testing.assert_allclose(early, whole[:5_000])
