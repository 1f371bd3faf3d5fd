"""Products nobody has bought yet, households never trained on: the data of cold start.

A *first purchase* is the first time a household buys a product. A model learns from first
purchases of the four weeks that follow a snapshot of what households had bought, and is judged on
the four weeks after a later one. Products and households are numbered from 0, in the order of
`Shop.products` and `Shop.households`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from ibis import _
from scipy import sparse

from recbal_utils import _inputs, datasets
from recbal_utils.errors import RecbalError
from recbal_utils.periods import CHOOSE_WEEKS, TEST_WEEKS, TRAIN_WEEKS

SNAPSHOTS = (20, 24, 28, 32, 36)  # last weeks of the histories to train with
WINDOW = 4
KNOWN, NEW_TO_CHOOSE, NEW_TO_TEST = "known", "new in weeks 41-44", "new in weeks 45-48"
DESCRIPTION = ["department", "product_category", "product_type", "brand", "package_size"]
QUESTIONS = ("new product", "who buys", "new category", "new household", "known household")
PADDING, UNKNOWN, FIRST_ID = 0, 1, 2


@dataclass(frozen=True)
class Shop:
    """What the shop knows, and who bought what for the first time.

    Attributes
    ----------
    products : pandas.DataFrame
        `product_id`, the columns of `DESCRIPTION`, `text`, `role` (known by week 40, or first
        sold in the weeks to choose or to test), `held_out` (its category is kept from training).
    households : pandas.DataFrame
        `household_id`, `held_out`.
    firsts : pandas.DataFrame
        First purchases: `household`, `product`, `week`.
    lines : pandas.DataFrame
        Purchases by household, product and week, of known products that are not held out:
        `household`, `product`, `week`.
    """

    products: pd.DataFrame
    households: pd.DataFrame
    firsts: pd.DataFrame
    lines: pd.DataFrame

    @property
    def trainable(self) -> np.ndarray:
        """Whether each product may be trained on."""
        return ((self.products.role == KNOWN) & ~self.products.held_out).to_numpy()


@dataclass(frozen=True)
class Question:
    """Some rows (households) and columns (products) to rank, and what is right.

    Attributes
    ----------
    households, products : ndarray of int
        What the rows and columns are.
    relevant, exclude : scipy CSR array of bool, shape (n_households, n_products)
        First purchases of the four weeks, and products bought before.
    by_product : bool
        Whether households are ranked for a product rather than products for a household.
    """

    households: np.ndarray
    products: np.ndarray
    relevant: sparse.csr_array
    exclude: sparse.csr_array
    by_product: bool = False


def load(*, least_buyers: int = 10, held_out: float = 0.2, seed: int = 0) -> Shop:
    """Read products, households and first purchases up to week 48.

    Parameters
    ----------
    least_buyers : int, default 10
        Households that must have bought a product by week 40 for it to be known. Products first
        sold later are all kept.
    held_out : float in [0, 1), default .2
        Share of households, and of product categories, kept from training.
    seed : int, default 0
        Which ones.

    Raises
    ------
    RecbalError
        If a setting is out of range, or the data package is missing.
    """
    least_buyers = _inputs.count(least_buyers, "least_buyers", 1)
    if not 0 <= held_out < 1:
        raise RecbalError(f"held_out must lie in [0, 1); it is {held_out!r}.")
    weeks = _.week <= TEST_WEEKS[-1]
    columns = ["household_id", "product_id", "week"]
    bought = datasets.purchases().filter(weeks).select(*columns).distinct().execute()
    bought = bought.sort_values(columns, ignore_index=True).astype(np.int64)
    products = _products(bought, least_buyers)
    households = pd.DataFrame({"household_id": np.unique(bought.household_id)})
    products["held_out"] = _drawn(products.product_category, held_out, seed)
    households["held_out"] = _drawn(households.household_id, held_out, seed + 1)
    lines = pd.DataFrame(
        {
            "household": pd.Index(households.household_id).get_indexer(bought.household_id),
            "product": pd.Index(products.product_id).get_indexer(bought.product_id),
            "week": bought.week,
        }
    )
    lines = lines[lines["product"] >= 0]
    firsts = lines.groupby(["household", "product"], as_index=False)["week"].min()
    shop = Shop(products, households, firsts, lines)
    usable = shop.trainable[lines["product"]]
    return Shop(products, households, firsts, lines[usable].reset_index(drop=True))


def texts(described: pd.DataFrame) -> pd.Series:
    """Return the words of each product: department, category, type, brand and size."""
    parts = described[DESCRIPTION].fillna("").astype(str)
    joined = [", ".join(word for word in row if word) for row in parts.itertuples(index=False)]
    return pd.Series(joined, described.index, dtype=object).str.lower().replace("", "unknown")


def histories(shop: Shop, week: int, length: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return what each household had bought by the end of a week, as bags of product types.

    Parameters
    ----------
    shop : Shop
    week : int
        The last week that counts.
    length : int, default 64
        Types of a household, those bought most often.

    Returns
    -------
    ids : ndarray of int32, shape (n_households, length)
        0 is padding, real types start at 2; see `type_codes`.
    weights : ndarray of float32, shape (n_households, length)
        ln(1 + weeks and products bought), scaled to length 1 for each household.
    """
    lines = shop.lines[shop.lines.week <= week]
    codes = type_codes(shop)[lines["product"]]
    counted = pd.DataFrame({"household": lines.household, "type": codes})
    counted = counted.value_counts().rename("n").reset_index()
    counted = counted.sort_values(["household", "n", "type"], ascending=[True, False, True])
    place = counted.groupby("household").cumcount()
    counted, place = counted[place < length], place[place < length]
    ids = np.zeros((len(shop.households), length), dtype=np.int32)
    weights = np.zeros(ids.shape, dtype=np.float32)
    ids[counted.household, place] = counted.type
    weights[counted.household, place] = np.log1p(counted.n)
    norm = np.linalg.norm(weights, axis=1, keepdims=True)
    return ids, weights / np.where(norm > 0, norm, 1)


def type_codes(shop: Shop) -> np.ndarray:
    """Return the id of each product's type: from 2 for those trained on, 1 for others."""
    return codes(shop.products[["product_type"]], shop.trainable)


def codes(columns: pd.DataFrame, known: np.ndarray) -> np.ndarray:
    """Number the distinct rows of some columns from 2, those among `known`; others get 1."""
    keys = pd.MultiIndex.from_frame(columns.fillna("").astype(str))
    learnt = keys[np.asarray(known)].unique().sort_values()
    return learnt.get_indexer(keys).astype(np.int32) + np.int32(FIRST_ID)


def training_pairs(shop: Shop) -> pd.DataFrame:
    """Return first purchases to learn from, each with the snapshot before it.

    Returns
    -------
    pandas.DataFrame
        `snapshot` (number in `SNAPSHOTS`), `household`, `product`, without what is held out.
    """
    firsts = shop.firsts
    firsts = firsts[shop.trainable[firsts["product"]]]
    firsts = firsts[~shop.households.held_out.to_numpy()[firsts.household]]
    last = SNAPSHOTS[-1] + WINDOW
    firsts = firsts[(firsts.week > SNAPSHOTS[0]) & (firsts.week <= last)]
    snapshot = (firsts.week - SNAPSHOTS[0] - 1) // WINDOW
    pairs = firsts[["household", "product"]].assign(snapshot=snapshot)
    return pairs[["snapshot", "household", "product"]].reset_index(drop=True)


def question(shop: Shop, name: str, weeks=TEST_WEEKS) -> Question:
    """Return one of `QUESTIONS`, asked of four weeks.

    Parameters
    ----------
    shop : Shop
    name : str
        - "new product": which products first sold in these weeks does a household buy?
        - "who buys": which households buy such a product, for products with two buyers or more?
        - "new category": which known products of categories kept from training?
        - "new household", "known household": which known products does a household buy for the
          first time, if it was kept from training, or was not?
    weeks : sequence of int
        `TEST_WEEKS` or `CHOOSE_WEEKS`.

    Raises
    ------
    RecbalError
        If there is no such question, or the weeks are others.
    """
    if name not in QUESTIONS:
        raise RecbalError(f"There is no question {name!r}; choose one of {', '.join(QUESTIONS)}.")
    roles = {tuple(CHOOSE_WEEKS): NEW_TO_CHOOSE, tuple(TEST_WEEKS): NEW_TO_TEST}
    if tuple(weeks) not in roles:
        raise RecbalError(f"weeks is {tuple(weeks)}; give CHOOSE_WEEKS or TEST_WEEKS.")
    table = shop.products
    asked = {
        "new category": (table.role == KNOWN) & table.held_out,
        "new household": shop.trainable,
        "known household": shop.trainable,
    }.get(name, (table.role == roles[tuple(weeks)]) & ~table.held_out)
    products = np.flatnonzero(asked)
    bought, before = _bought(shop, products, weeks)
    if name == "who buys":
        kept = np.flatnonzero(np.diff(bought.tocsc().indptr) >= 2)
        every = np.arange(len(shop.households))
        return Question(every, products[kept], bought[:, kept], before[:, kept], True)
    rows = np.diff(bought.indptr) > 0
    if name.endswith("household"):
        rows &= shop.households.held_out.to_numpy() == (name == "new household")
    rows = np.flatnonzero(rows)
    return Question(rows, products, bought[rows], before[rows])


def _bought(shop, products, weeks):
    """First purchases in these weeks, and those before, of some products."""
    firsts = shop.firsts
    column = pd.Index(products).get_indexer(firsts["product"])
    masks = (column >= 0) & firsts.week.isin(list(weeks)), (column >= 0) & (firsts.week < weeks[0])
    shape = (len(shop.households), len(products))
    return tuple(
        sparse.csr_array(
            (np.ones(mask.sum(), dtype=bool), (firsts.household[mask], column[mask])), shape
        )
        for mask in masks
    )


def _products(bought, least_buyers):
    first = bought.groupby("product_id").week.min()
    by_training = bought[bought.week <= TRAIN_WEEKS[-1]]
    buyers = by_training.groupby("product_id").household_id.nunique()
    role = pd.Series(KNOWN, buyers.index[buyers >= least_buyers])
    for name, weeks in {NEW_TO_CHOOSE: CHOOSE_WEEKS, NEW_TO_TEST: TEST_WEEKS}.items():
        role = pd.concat([role, pd.Series(name, first.index[first.isin(weeks)])])
    described = datasets.journey("products").select("product_id", *DESCRIPTION).execute()
    described = described.set_index(described.product_id.astype(np.int64))[DESCRIPTION]
    table = described.reindex(role.index)
    table = table.assign(text=texts(table), role=role)
    return table.rename_axis("product_id").reset_index()


def _drawn(names, share, seed):
    """Whether each name is in a random share of the distinct ones; a missing name is not."""
    distinct = np.unique(names.dropna())
    drawn = np.random.default_rng(seed).random(len(distinct)) < share
    return names.isin(distinct[drawn]).to_numpy()
