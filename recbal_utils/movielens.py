"""MovieLens-100k: who gave which film how many stars, when, and the genres of the films.

The package ``recbole`` carries the files; none of its code is used. The data are for research: no
commercial use, no redistribution without permission of the GroupLens Research Project, and no word
that it or the University of Minnesota endorses what is done with them. F. M. Harper and
J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from recbal_utils import _inputs
from recbal_utils._files import package_file, require_columns
from recbal_utils.errors import RecbalError

CHOOSE_START = pd.Timestamp("1998-01-01")  # ratings before it fit the models that choose settings
TEST_START = pd.Timestamp("1998-02-16")  # ratings before it fit the models that are tested
STARS = (1, 2, 3, 4, 5)
UNKNOWN = "unknown"
_FOLDER = "dataset_example/ml-100k"
_RATINGS = {"user_id:token": "user", "item_id:token": "film", "rating:float": "stars"}
_RATINGS |= {"timestamp:float": "time"}
_FILMS = {"item_id:token": "id", "movie_title:token_seq": "title", "release_year:token": "year"}
_FILMS |= {"class:token_seq": "genres"}


@dataclass(frozen=True)
class MovieLens:
    """The data set, films numbered from 0.

    Attributes
    ----------
    ratings : DataFrame
        `user` (from 1), `film` (row of `films`), `stars` (1 to 5), `time`, oldest first.
    films : DataFrame
        `id` (that of MovieLens), `title`, `year` (NaN where unknown), `genres` (their names).
    genres : DataFrame of bool, shape (n_films, 18)
        A column for each genre; all False where it is unknown.
    """

    ratings: pd.DataFrame
    films: pd.DataFrame
    genres: pd.DataFrame


@dataclass(frozen=True)
class Question:
    """What is known of some users, and what they rated after that.

    Attributes
    ----------
    users : ndarray of int, shape (n,)
    history, relevant : CSR array of bool, shape (n, n_films)
        Films rated before the moment of asking, and from it on; no film is in both.
    left_out : int
        Later ratings of films that nobody rated before the period.
    """

    users: np.ndarray
    history: sparse.csr_array
    relevant: sparse.csr_array
    left_out: int


# --- reading --------------------------------------------------------------------------------


def load() -> MovieLens:
    """Read the data set: 100,000 ratings of 943 users for 1,682 films, 1997-09 to 1998-04.

    Raises
    ------
    RecbalError
        The data package is missing, or a file is damaged.
    """
    return read(package_file("recbole", f"{_FOLDER}/ml-100k.inter").parent)


def read(folder: Path | str) -> MovieLens:
    """Read `ml-100k.inter` and `ml-100k.item` of a folder.

    Parameters
    ----------
    folder : path

    Returns
    -------
    MovieLens

    Raises
    ------
    RecbalError
        A file or a column is missing, a rating is not of 1 to 5 stars or of a film without a row,
        or a user rated a film twice.
    """
    films = _table(Path(folder) / "ml-100k.item", _FILMS)
    ratings = _table(Path(folder) / "ml-100k.inter", _RATINGS)
    rows = pd.Index(films["id"]).get_indexer(ratings["film"])
    stars = pd.to_numeric(ratings["stars"], errors="coerce")
    if (bad := ~stars.isin(STARS) | (rows < 0)).any():
        raise RecbalError(
            f"ml-100k.inter, line {int(bad.to_numpy().argmax()) + 2}: a rating must have 1 to 5 "
            "stars and a film of ml-100k.item; reinstall requirements-data.txt."
        )
    if (twice := ratings.duplicated(["user", "film"])).any():
        raise RecbalError(
            f"ml-100k.inter, line {int(twice.to_numpy().argmax()) + 2}: this user has rated this "
            "film before; reinstall requirements-data.txt."
        )
    found = {"user": ratings["user"].astype(int), "film": rows, "stars": stars.astype(int)}
    found["time"] = pd.to_datetime(ratings["time"].astype(float), unit="s")
    ordered = pd.DataFrame(found).sort_values(["time", "user", "film"], ignore_index=True)
    films["year"] = pd.to_numeric(films["year"], errors="coerce")
    genres = films["genres"].str.get_dummies(" ").astype(bool)
    return MovieLens(ordered, films, genres.drop(columns=UNKNOWN, errors="ignore"))


def _table(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """Columns of a tab-separated file, as text, under other names."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise RecbalError(
            f"{path.name} cannot be read ({error}); reinstall requirements-data.txt."
        ) from None
    require_columns(path, table.columns, list(names))
    return table[list(names)].rename(columns=names)


# --- splitting by time ----------------------------------------------------------------------


def rated(ratings: pd.DataFrame, n_films: int, *, least_stars: int = 1) -> sparse.csr_array:
    """Return which user rated which film: CSR array of float32 0 and 1.

    Parameters
    ----------
    ratings : DataFrame
        As of `MovieLens`; each user in it is a row, in the order of their numbers.
    n_films : int
    least_stars : int
        Ratings of fewer stars are left out.
    """
    users, row = np.unique(ratings["user"], return_inverse=True)
    enough = (ratings["stars"] >= least_stars).to_numpy()
    at = row[enough], ratings["film"].to_numpy()[enough]
    shape = len(users), n_films
    return sparse.csr_array((np.ones(enough.sum(), np.float32), at), shape=shape)


def question(data: MovieLens, start, stop=None, *, least: int = 10) -> Question:
    """Ask what users rate in the second half of their ratings of a period.

    Parameters
    ----------
    data : MovieLens
    start, stop : timestamp
        First moment of the period, and the first after it (None: the end of the data). Fit on
        `data.ratings` before `start` only.
    least : int
        Users with fewer ratings in the period are not asked.

    Returns
    -------
    Question
        Known of a user: all ratings before the period and its first half in the period. Ratings
        of one second come from one page of the site and stay on one side. Users of whom nothing
        of known films is on one of the sides are left out.

    Raises
    ------
    RecbalError
        If no user has that many ratings in the period.
    """
    ratings, n_films = data.ratings, len(data.films)
    least = _inputs.count(least, "least", 2)
    stop = ratings["time"].max() + pd.Timedelta(seconds=1) if stop is None else stop
    inside = ratings[(ratings["time"] >= start) & (ratings["time"] < stop)]
    inside = inside[inside.groupby("user")["film"].transform("size") >= least]
    if inside.empty:
        raise RecbalError(f"no user has {least} ratings from {start} to {stop}: ask fewer.")
    asked_at = inside.groupby("user")["time"].agg(_middle)
    mine = ratings[(ratings["time"] < stop) & ratings["user"].isin(asked_at.index)]
    later = (mine["time"] >= mine["user"].map(asked_at)).to_numpy()
    known = np.isin(mine["film"], ratings.loc[ratings["time"] < start, "film"])
    users, row = np.unique(mine["user"], return_inverse=True)
    history, relevant = (
        _flags(row[part], mine["film"].to_numpy()[part], (len(users), n_films))
        for part in (~later & known, later & known)
    )
    both = (np.diff(history.indptr) > 0) & (np.diff(relevant.indptr) > 0)
    left_out = int((later & ~known).sum())
    return Question(users[both], history[both], relevant[both], left_out)


def _middle(times: pd.Series) -> pd.Timestamp:
    """The first moment that has half of the times or more before it, or else the last one."""
    ordered = np.sort(times.to_numpy())
    after = ordered[ordered > ordered[(len(ordered) - 1) // 2]]
    return pd.Timestamp(after[0] if len(after) else ordered[-1])


def _flags(rows, columns, shape) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=shape)


# --- what models read -----------------------------------------------------------------------


def puzzles(bought: sparse.csr_array, *, times: int = 8, seed: int = 0):
    """Hide a random part of each user's films, several times, for a model to find.

    Parameters
    ----------
    bought : CSR array of shape (n_users, n_films)
        See `rated`.
    times : int
        Puzzles of each user; each hides between a tenth and seven tenths.
    seed : int

    Returns
    -------
    (left, pairs)
        `left`: ndarray of float32, shape (times * n_users, n_films), see `scaled`, the films
        that are not hidden. `pairs`: ndarray of int, shape (n, 2), a row of `left` and a film
        hidden in it.
    """
    rng = np.random.default_rng([seed, 3])
    row, film = bought.nonzero()
    left, pairs = [], []
    for turn in range(_inputs.count(times, "times", 1)):
        start = turn * bought.shape[0]
        hidden = rng.random(len(row)) < rng.uniform(0.1, 0.7, bought.shape[0])[row]
        left.append(scaled(_flags(row[~hidden], film[~hidden], bought.shape)))
        pairs.append(np.column_stack([row[hidden] + start, film[hidden]]))
    return np.concatenate(left), np.concatenate(pairs)


def scaled(flags: sparse.csr_array) -> np.ndarray:
    """Rows of 0 and 1, dense, in float32, each divided by the root of its sum (length 1)."""
    dense = flags.toarray().astype(np.float32)
    return dense / np.sqrt(np.maximum(dense.sum(axis=1, keepdims=True), 1))


def star_features(ratings: pd.DataFrame, prior: float = 10.0) -> np.ndarray:
    """What is known before each rating: mean stars and number of earlier ratings.

    Parameters
    ----------
    ratings : DataFrame
        As of `MovieLens`, oldest first.
    prior : float
        Ratings of the mean of everything earlier that are added to each mean; above 0.

    Returns
    -------
    ndarray of shape (n_ratings, 4)
        Shrunk mean stars of the user and of the film, then ln(1 + number) for both. Ratings of
        the same second do not count as earlier.
    """
    everyone = pd.Series(0, index=ratings.index)
    total, number = _earlier(ratings, everyone)
    overall = np.where(number > 0, total / np.maximum(number, 1), np.mean(STARS))
    sums = [_earlier(ratings, ratings[by]) for by in ("user", "film")]
    means = [(total + prior * overall) / (number + prior) for total, number in sums]
    return np.column_stack([*means, *(np.log1p(number) for _, number in sums)])


def _earlier(ratings, key):
    """Sum and number of stars with the same key at an earlier second."""
    by = [key.to_numpy(), ratings["time"].to_numpy()]
    at = ratings.groupby(by)["stars"].agg(["sum", "size"])
    before = at.groupby(level=0).cumsum() - at
    found = before.reindex(pd.MultiIndex.from_arrays(by)).to_numpy()
    return found[:, 0], found[:, 1]
