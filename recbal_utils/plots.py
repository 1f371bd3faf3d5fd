"""Figures of the book: `plot_<thing>(data, *, ax=None) -> Axes`.

Every function draws on `ax`, or on a new figure in the book's style, names the axes
with their units, and sets no title: the caller states the finding. Lines differ in
colour, in line style and in marker, so a figure can be read without colour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from recbal_utils import periods as weeks_of
from recbal_utils import ranks
from recbal_utils._atomic import replacing
from recbal_utils._inequality import TIERS, lorenz, tiers
from recbal_utils.errors import RecbalError

STYLE = Path(__file__).with_name("recbal.mplstyle")

# M. Okabe & K. Ito (2008), Color Universal Design. Orange, sky blue and yellow are too
# pale on white for lines and text (under 3:1): they serve as fills only.
OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
}
LINE_COLOURS = tuple(OKABE_ITO[name] for name in ("blue", "vermilion", "green", "purple", "black"))
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")

POSITIVE = OKABE_ITO["vermilion"]
NEGATIVE = OKABE_ITO["blue"]
REFERENCE = "#595959"
TEXT = "#222222"
TIER_COLOURS = {
    "head": OKABE_ITO["blue"],
    "mid": OKABE_ITO["green"],
    "tail": OKABE_ITO["vermilion"],
}
PERIOD_FILLS = ("#DCEBF5", "#FFF3CC", "#FBE0D0", "#E6E6E6")

# Weeks of the promotion log, first and last of each period.
PERIODS = {
    name: (weeks[0], weeks[-1])
    for name, weeks in {
        "train": weeks_of.TRAIN_WEEKS,
        "choose": weeks_of.CHOOSE_WEEKS,
        "test": weeks_of.TEST_WEEKS,
        "closed": weeks_of.CLOSED_WEEKS,
    }.items()
}

MAX_BINS = 1000  # of a thinned curve: more than a figure has pixels


def use_style() -> None:
    """Put the book's style in force for all later figures of this session."""
    plt.style.use(STYLE)


# --- what every plot needs ---------------------------------------------------------


def _axes(ax) -> Axes:
    if ax is None:
        # Chosen inside the context, the notebook's backend would be forgotten at its end.
        matplotlib.get_backend()
        with plt.style.context(STYLE):
            return plt.subplots()[1]
    if not isinstance(ax, Axes):
        raise RecbalError(f"ax must be matplotlib Axes, not {type(ax).__name__}.")
    return ax


def _look(i: int) -> dict:
    """Colour and line style of the i-th line; they return with other partners after five."""
    n = len(LINE_COLOURS)
    return {"color": LINE_COLOURS[i % n], "linestyle": LINE_STYLES[(i + i // n) % n]}


def _ink(colour: str) -> str:
    """The colour, darkened for text: small letters need more contrast than lines (4.5:1)."""
    return to_hex(tuple(0.72 * c for c in to_rgb(colour)))


def _share(axis) -> None:
    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _named(data, name="") -> dict:
    """One thing, or a mapping of names to things, as a mapping."""
    if not isinstance(data, Mapping):
        return {name: data}
    if not data:
        raise RecbalError("There is nothing to draw: the mapping of names to data is empty.")
    return {str(key): value for key, value in data.items()}


def _frame(data, columns, what) -> pd.DataFrame:
    if not isinstance(data, pd.DataFrame):
        raise RecbalError(f"{what} must be a pandas DataFrame, not {type(data).__name__}.")
    missing = [column for column in columns if column not in data.columns]
    if missing:
        raise RecbalError(f"{what} lacks the column(s) {', '.join(missing)}.")
    if data.empty:
        raise RecbalError(f"{what} has no rows: there is nothing to draw.")
    return data


def thin(x, y, *, n_bins=MAX_BINS) -> tuple[np.ndarray, np.ndarray]:
    """Fewer points with the same picture: first, last, lowest and highest of each bin of x.

    Parameters
    ----------
    x, y : array-like of shape (n_points,)
        A curve whose x never turns back.
    n_bins : int
        Bins of equal width along x; at most 4 points of each are kept.

    Returns
    -------
    x, y : arrays of at most 4 * n_bins points, a subset of those given, in order

    Source: the M4 rule of U. Jugel et al. (2014), PVLDB 7(10), 797-808.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) <= 4 * n_bins:
        return x, y
    span = x.max() - x.min()
    bins = np.minimum(((x - x.min()) / (span or 1) * n_bins).astype(int), n_bins - 1)
    rows = pd.DataFrame({"y": y}).groupby(bins)["y"]
    position = pd.Series(np.arange(len(x))).groupby(bins)
    keep = np.unique(np.concatenate([position.min(), position.max(), rows.idxmin(), rows.idxmax()]))
    return x[keep], y[keep]


def _label_right(ax, points) -> None:
    """Write (y, text, colour) beside the right edge, moved apart where they would overlap."""
    transform, back = ax.transData, ax.transAxes.inverted()
    spots = sorted(
        (back.transform(transform.transform((0, y)))[1], text, colour) for y, text, colour in points
    )
    height, last = 0.065, -np.inf
    for y, text, colour in spots:
        last = max(y, last + height)
        ax.text(
            1.01, last, text, color=_ink(colour), transform=ax.transAxes, va="center", fontsize=9
        )


# --- curves ------------------------------------------------------------------------


def _scores(y, p, name="") -> tuple[np.ndarray, np.ndarray]:
    """Check labels and scores of one curve."""
    of = f" of {name!r}" if name else ""
    try:
        y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    except (TypeError, ValueError):
        raise RecbalError(f"Labels and scores{of} must be numbers.") from None
    if y.ndim != 1 or y.shape != p.shape:
        raise RecbalError(
            f"Labels and scores{of} must be lists of one length, not shapes {y.shape} and "
            f"{p.shape}: flatten an (n, 1) prediction with .ravel()."
        )
    if not np.isin(y, (0, 1)).all() or not np.isfinite(p).all():
        raise RecbalError(f"Labels{of} must be 0 or 1, and scores finite.")
    if y.size == 0 or y.min() == y.max():
        raise RecbalError(f"Labels{of} hold one class only: a curve needs both.")
    return y, p


def _curves(y, p) -> dict:
    if p is not None:
        return {"": _scores(y, p)}
    if not isinstance(y, Mapping):
        raise RecbalError("Give labels and scores, or a mapping of names to (labels, scores).")
    for name, pair in _named(y).items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise RecbalError(f"{name!r} must be a pair (labels, scores).")
    return {name: _scores(*pair, name) for name, pair in _named(y).items()}


def _legend(name, figure) -> str:
    return f"{name} ({figure})" if name else figure


def plot_roc(y, p=None, *, ax=None) -> Axes:
    """ROC curve: share of positives found against share of negatives raised with them.

    Parameters
    ----------
    y : array-like of shape (n_rows,) of 0 and 1, or mapping of name to (y, p)
    p : array-like of shape (n_rows,), optional
        Scores or probabilities, higher for more likely positive.
    ax : Axes, optional

    Returns
    -------
    Axes
        Curves are thinned to a few thousand points; the area in the legend is of
        the whole curve.
    """
    curves, ax = _curves(y, p), _axes(ax)
    ax.plot([0, 1], [0, 1], color=REFERENCE, linestyle=":", linewidth=1.2, label="_chance")
    for i, (name, (labels, scores)) in enumerate(curves.items()):
        fpr, tpr, _ = roc_curve(labels, scores)
        label = _legend(name, f"area {auc(fpr, tpr):.3f}")
        ax.plot(*thin(fpr, tpr), label=label, **_look(i))
    ax.text(0.62, 0.57, "chance", color=REFERENCE, fontsize=9, ha="left", va="top")
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    ax.set_xlabel("False positive rate (share of negatives)")
    ax.set_ylabel("True positive rate (share of positives)")
    ax.legend(loc="lower right")
    return ax


def plot_precision_recall(y, p=None, *, ax=None) -> Axes:
    """Precision-recall curve with the prevalence, which is the precision of chance.

    Parameters
    ----------
    y : array-like of shape (n_rows,) of 0 and 1, or mapping of name to (y, p)
    p : array-like of shape (n_rows,), optional
        Scores or probabilities, higher for more likely positive.
    ax : Axes, optional

    Returns
    -------
    Axes
        One dashed line for each different prevalence. Curves are thinned; the
        average precision in the legend is of all rows.
    """
    curves, ax = _curves(y, p), _axes(ax)
    for i, (name, (labels, scores)) in enumerate(curves.items()):
        precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
        label = _legend(name, f"AP {average_precision_score(labels, scores):.3f}")
        ax.plot(*thin(recall[::-1], precision[::-1]), label=label, **_look(i))
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    rates = sorted({float(labels.mean()) for labels, _ in curves.values()})
    for rate in rates:
        ax.axhline(rate, color=REFERENCE, linestyle=(0, (2, 3)), linewidth=1.2, label="_prevalence")
    _label_right(ax, [(rate, f"prevalence {rate:.3g}", REFERENCE) for rate in rates])
    ax.set_xlabel("Recall (share of positives found)")
    ax.set_ylabel("Precision (share of found that are positive)")
    ax.legend(loc="upper right")
    return ax


def plot_reliability(data, *, ax=None, log=False) -> Axes:
    """Reliability curve: observed rate against mean predicted probability, per bin.

    Parameters
    ----------
    data : DataFrame with columns `predicted`, `observed`, or mapping of name to such
        One row a bin, both columns in [0, 1]. With columns `low` and `high` the
        interval of the observed rate is drawn.
    ax : Axes, optional
    log : bool
        Logarithmic axes, for probabilities near zero. A bin without a positive has no
        place on them: it is drawn as a hollow triangle on the lower edge.
    """
    curves, ax = _named(data), _axes(ax)
    curves = {
        name: _frame(frame, ("predicted", "observed"), f"The curve {name!r}".replace(" ''", ""))
        for name, frame in curves.items()
    }
    low, high = _reliability_limits(curves.values(), log)
    for i, (name, frame) in enumerate(curves.items()):
        _reliability_line(ax, frame, i, name, log, low)
    diagonal = {"color": REFERENCE, "linestyle": ":", "linewidth": 1.2, "zorder": 1}
    ax.plot([low, high], [low, high], label="calibrated", **diagonal)
    if log:
        ax.set(xscale="log", yscale="log")
    ax.set(xlim=(low, high), ylim=(low, high))
    ax.set_xlabel("Mean predicted probability of a bin")
    ax.set_ylabel("Observed rate of positives in it")
    ax.legend(loc="upper left")
    return ax


def _reliability_limits(frames, log) -> tuple[float, float]:
    frames = [f.reindex(columns=["predicted", "observed", "high"]).astype(float) for f in frames]
    values = np.concatenate([np.ravel(f[["predicted", "observed"]]) for f in frames])
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise RecbalError("A reliability curve needs predicted and observed rates between 0 and 1.")
    if values.max() == 0:
        raise RecbalError("All predicted and observed rates are 0: there is no curve to draw.")
    top = np.nanmax([values.max(), *(f["high"].max() for f in frames)])
    if log:
        return values[values > 0].min() / 2, min(1.0, top * 2)
    return 0.0, min(1.0, top * 1.05)


def _reliability_line(ax, frame, i, name, log, floor) -> None:
    look = {**_look(i), "marker": MARKERS[i % len(MARKERS)]}
    frame = frame.sort_values("predicted")
    drawn = frame[(frame["predicted"] > 0) & (frame["observed"] > 0)] if log else frame
    ax.plot(drawn["predicted"], drawn["observed"], label=name or "_one", **look)
    if {"low", "high"} <= set(frame.columns):
        low = drawn["low"].clip(lower=floor) if log else drawn["low"]
        ax.vlines(drawn["predicted"], low, drawn["high"], color=look["color"], linewidth=1)
    empty = frame[(frame["predicted"] > 0) & (frame["observed"] == 0)] if log else frame[:0]
    if len(empty):
        ax.plot(
            empty["predicted"],
            np.full(len(empty), floor),
            linestyle="none",
            marker="v",
            markerfacecolor="white",
            color=look["color"],
            clip_on=False,
            label="_no positive",
        )


# --- concentration -----------------------------------------------------------------


def plot_lorenz(data, *, ax=None, units="units", total="total") -> Axes:
    """Lorenz curves: share of the total held by the smallest units, with the Gini index.

    Parameters
    ----------
    data : totals per unit (array-like), a frame from `diagnose.lorenz`, or a mapping of
        name to either
    ax : Axes, optional
    units, total : str
        What the units and the total are, for the axes: "products", "conversions".
    """
    curves, ax = {name: _lorenz_frame(d) for name, d in _named(data).items()}, _axes(ax)
    ax.plot([0, 1], [0, 1], color=REFERENCE, linestyle=":", linewidth=1.2, label="_equal")
    ax.text(0.3, 0.33, "all equal", color=REFERENCE, fontsize=9, ha="right", va="bottom")
    ginis = {
        name: 1 - 2 * np.trapezoid(curve["share_of_total"], curve["share_of_units"])
        for name, curve in curves.items()
    }
    outward = sorted(ginis, key=ginis.get)
    for i, (name, curve) in enumerate(curves.items()):
        x, y = thin(curve["share_of_units"], curve["share_of_total"])
        ax.plot(x, y, label=name or "_one", **_look(i))
        height = 0.45 - 0.4 * outward.index(name) / max(len(curves), 2)
        text = ", ".join(filter(None, [name, f"Gini {ginis[name]:.2f}"]))
        _label_lorenz(ax, x, y, height, text, i)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    _share(ax.xaxis)
    _share(ax.yaxis)
    ax.set_xlabel(f"Share of {units}, smallest first (%)")
    ax.set_ylabel(f"Share of {total} they hold (%)")
    return ax


def _lorenz_frame(data) -> pd.DataFrame:
    if not isinstance(data, pd.DataFrame):
        return lorenz(data)
    frame = _frame(data, ("share_of_units", "share_of_total"), "The Lorenz curve")
    if not np.isfinite(frame[["share_of_units", "share_of_total"]].to_numpy()).all():
        raise RecbalError("The Lorenz curve holds missing values.")
    return frame


def _label_lorenz(ax, x, y, height, text, i) -> None:
    """Beside the curve: inside it where there is room, else below it."""
    at = float(np.interp(height, y, x))
    inside = at - height > 0.3
    ax.annotate(
        text,
        (at, height),
        xytext=(-8 if inside else 8, 0 if inside else -6),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        color=_ink(LINE_COLOURS[i % len(LINE_COLOURS)]),
        fontsize=9,
    )


def plot_long_tail(counts, *, ax=None, units="products", total="conversions") -> Axes:
    """Rank against size on logarithmic axes, with the head, mid and tail tiers as bands.

    Parameters
    ----------
    counts : array-like of shape (n_units,)
        Totals per unit, zeros included: units with none lie in the tail, beyond the
        end of the line, and are counted in words.
    ax : Axes, optional
    units, total : str
        What the units and the total are, for the axes.
    """
    tier = tiers(counts).to_numpy()
    ax = _axes(ax)
    size = np.asarray(counts, dtype=float)
    bought = np.sort(size[size > 0])[::-1]
    log_rank, log_size = thin(np.log10(np.arange(1, len(bought) + 1)), np.log10(bought))
    ax.plot(10**log_rank, 10**log_size, color=TEXT, linewidth=2)
    start = 0.8
    for name in TIERS:
        of_tier = tier == name
        if not of_tier.any():
            continue
        end = start if start >= 1 else 0.0
        end = end + of_tier.sum()
        _tier_band(ax, start, end, name, size[of_tier].sum() / size.sum())
        start = end
    ax.set(xscale="log", yscale="log", xlim=(0.8, len(size) * 1.02))
    ax.set_ylim(bought[-1] * 0.7, bought[0] * 3)
    _plain_counts(ax.xaxis)
    _plain_counts(ax.yaxis)
    never = len(size) - len(bought)
    rest = f"; {never:,} of {len(size):,} have none" if never else ""
    ax.set_xlabel(f"Rank of {units} (number, log scale{rest})")
    ax.set_ylabel(f"{total.capitalize()} (number, log scale)")
    return ax


def _tier_band(ax, start, end, name, share) -> None:
    colour = TIER_COLOURS[name]
    ax.axvspan(start, end, color=colour, alpha=0.13, linewidth=0, label=name)
    ax.annotate(
        f"{name}\n{share:.0%}" if share == 0 or share >= 0.01 else f"{name}\n< 1%",
        (np.sqrt(start * end), 0.98),
        xycoords=ax.get_xaxis_transform(),
        ha="center",
        va="top",
        fontsize=9,
        color=_ink(colour),
    )


def _plain_counts(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 1 else f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


# --- tables of figures -------------------------------------------------------------


def plot_intervals(data, *, ax=None, reference=None, xlabel="Value") -> Axes:
    """Dots with whiskers: value, low and high of each row, several methods side by side.

    Parameters
    ----------
    data : DataFrame with columns `value`, `low`, `high`, or mapping of name to such
        The index names the rows (metrics, or methods), drawn from the top down. Of
        several frames the rows of the first give the order.
    ax : Axes, optional
    reference : float, optional
        Draws a vertical line there, for example 0 for differences.
    xlabel : str
        What is measured, with its unit.
    """
    frames, ax = _named(data), _axes(ax)
    for name, frame in frames.items():
        _frame(frame, ("value", "low", "high"), f"The table {name!r}".replace(" ''", ""))
        if not frame.index.is_unique:
            raise RecbalError(f"The table {name!r} names a row twice: give each row its own name.")
    rows = list(dict.fromkeys(row for frame in frames.values() for row in frame.index))
    offsets = (np.arange(len(frames)) - (len(frames) - 1) / 2) * min(0.2, 0.7 / len(frames))
    for i, (name, frame) in enumerate(frames.items()):
        place = np.array([rows.index(row) for row in frame.index]) + offsets[i]
        _whiskers(ax, frame, place, name, i)
    if reference is not None:
        ax.axvline(reference, color=REFERENCE, linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(rows)), [str(row) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(xlabel)
    if len(frames) > 1:
        ax.legend(loc="best")
    return ax


def _whiskers(ax, frame, place, name, i) -> None:
    low, value, high = (frame[column].to_numpy(dtype=float) for column in ("low", "value", "high"))
    if not np.isfinite(value).all():
        raise RecbalError(f"The table {name!r} has a value that is missing or infinite.")
    if ((low > value) | (high < value)).any():
        raise RecbalError(f"The table {name!r} has a value outside its own low and high.")
    colour = LINE_COLOURS[i % len(LINE_COLOURS)]
    ax.hlines(place, low, high, color=colour, linewidth=1.8)
    ax.plot(
        value, place, linestyle="none", marker=MARKERS[i % 5], color=colour, label=name or "_one"
    )


def plot_weekly(data, *, ax=None, ylabel="Value", periods=PERIODS) -> Axes:
    """Lines over week numbers, with the weeks of training, choosing and testing shaded.

    Parameters
    ----------
    data : DataFrame or Series indexed by week (or with a column `week`)
        One line for each column, named at its right end.
    ax : Axes, optional
    ylabel : str
        What is measured, with its unit.
    periods : mapping of name to (first week, last week), or None
        The shaded bands, both weeks included.
    """
    frame = data.to_frame(data.name or "") if isinstance(data, pd.Series) else data
    frame = _frame(frame, (), "The weekly table")
    frame = (frame.set_index("week") if "week" in frame.columns else frame).sort_index()
    if not pd.api.types.is_numeric_dtype(frame.index):
        raise RecbalError("The weekly table must be indexed by week numbers.")
    ax, ends = _axes(ax), []
    for i, (name, line) in enumerate(frame.items()):
        look = {**_look(i), "marker": MARKERS[i % 5], "markersize": 3.5}
        ax.plot(line.index, line.to_numpy(dtype=float), label=str(name) or "_one", **look)
        if line.notna().any() and str(name):
            ends.append((float(line.dropna().iloc[-1]), str(name), look["color"]))
    weeks = frame.index
    if periods:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.06 * (high - low))  # room for the names of the periods
    ax.set_xlim(weeks.min() - 0.5, weeks.max() + 0.5)
    for i, (name, (first, last)) in enumerate((periods or {}).items()):
        fill = PERIOD_FILLS[i % len(PERIOD_FILLS)]
        _period_band(ax, name, max(first, weeks.min()), min(last, weeks.max()), fill)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("Week of 2017" if periods is PERIODS else "Week")
    ax.set_ylabel(ylabel)
    if len(ends) > 1:
        _label_right(ax, ends)
    return ax


def _period_band(ax, name, first, last, fill) -> None:
    if first > last:
        return
    ax.axvspan(first - 0.5, last + 0.5, color=fill, linewidth=0, zorder=0, label=f"_{name}")
    ax.annotate(
        name,
        ((first + last) / 2, 0.985),
        xycoords=ax.get_xaxis_transform(),
        ha="center",
        va="top",
        color=TEXT,
        fontsize=8.5,
    )


def plot_counts(data, *, ax=None, unit="rows") -> Axes:
    """Horizontal bars on a logarithmic axis, each with its number: a funnel, a label count.

    Parameters
    ----------
    data : Series or mapping of name to count
        Counts of 0 or more, drawn from the top down. A bar of 0 has no length.
    ax : Axes, optional
    unit : str
        What is counted, for the axis.
    """
    counts = pd.Series(dict(data) if isinstance(data, Mapping) else data)
    if counts.empty or not pd.api.types.is_numeric_dtype(counts):
        raise RecbalError("Give a Series or mapping of names to counts, with at least one.")
    if counts.isna().any() or (counts < 0).any() or counts.max() <= 0:
        raise RecbalError("Counts must be 0 or more, none missing, and one above 0.")
    ax, places = _axes(ax), np.arange(len(counts))
    floor = min(1.0, counts[counts > 0].min()) / 2
    colours = [LINE_COLOURS[i % len(LINE_COLOURS)] for i in places]
    ax.barh(places, np.maximum(counts, floor) - floor, left=floor, color=colours, height=0.6)
    for place, count in enumerate(counts):
        ax.annotate(
            f"{count:,.0f}" if count == round(count) else f"{count:,.3g}",
            (max(count, floor), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set(xscale="log", xlim=(floor, counts.max() * (counts.max() / floor) ** 0.22))
    ax.set_yticks(places, [str(name) for name in counts.index])
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    _plain_counts(ax.xaxis)
    ax.set_xlabel(f"Number of {unit} (log scale)")
    return ax


def plot_critical_difference(average, *, n_sets, ax=None, alpha=0.05, highlight=None) -> Axes:
    """Average ranks on a line, best on the left; a bar joins methods that no test tells apart.

    Parameters
    ----------
    average : Series
        Average rank of each method over the data sets; 1 is best.
    n_sets : int
        Number of data sets.
    ax : Axes, optional
    alpha : float
        Level of the Nemenyi test.
    highlight : str, optional
        The method to draw in colour, such as that which does nothing.

    Source: J. Demšar (2006), JMLR 7, 1-30, figure 1.
    """
    ranked = pd.Series(average, dtype=float).sort_values(kind="stable")
    k = len(ranked)
    if k < 2 or not ranked.between(1, k).all():
        raise RecbalError(
            "average must hold the ranks of 2 methods or more, from 1 to their number."
        )
    cd, ax = ranks.critical_difference(k, n_sets, alpha), _axes(ax)
    for place, (name, rank) in enumerate(ranked.items()):
        colour = POSITIVE if name == highlight else NEGATIVE
        ax.hlines(place, 0.6, rank, color=colour, linewidth=1, linestyle=":")
        ax.plot(rank, place, marker=MARKERS[name == highlight], color=colour, linestyle="none")
    for i, group in enumerate(ranks.groups_alike(ranked, cd)):
        first, last = ranked[group[0]], ranked[group[-1]]
        ax.plot([first, last], [k + 0.45 * i] * 2, color=REFERENCE, linewidth=3.5, label="alike")
    ax.plot([1, 1 + cd], [-1, -1], "-|", color="black", linewidth=1.5, label="critical")
    ax.text(1.1 + cd, -0.8, f"critical difference {cd:.2f}", fontsize=8.5)
    ax.set_yticks(range(k), [str(name) for name in ranked.index])
    ax.set(xlim=(0.6, k + 0.2), ylim=(k + 1.2, -2), xlabel="Average rank (1 is best)")
    ax.grid(visible=False, axis="y")
    return ax


# --- figures for other pages -------------------------------------------------------


def figures_dir() -> Path:
    """Where `save_figure` writes: RECBAL_FIGURES_DIR, else `_build/figures` of the book.

    The book is the nearest folder, from the current one upwards, that holds
    `_config.yml`; without one, the current folder.
    """
    if os.environ.get("RECBAL_FIGURES_DIR"):
        return Path(os.environ["RECBAL_FIGURES_DIR"])
    here = Path.cwd()
    root = next((f for f in (here, *here.parents) if (f / "_config.yml").is_file()), here)
    return root / "_build" / "figures"


def save_figure(fig, name: str) -> Path:
    """Write a figure for other pages to show, as a whole or not at all.

    Parameters
    ----------
    fig : Figure or Axes
    name : str
        Letters, digits, `-` and `_`, ending in `.svg` or `.png`; without an ending,
        `.svg`. The same figure gives the same bytes.

    Returns
    -------
    Path of the file

    Raises
    ------
    RecbalError
        If the name is not such a name, or the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.svg|\.png)?", str(name)):
        raise RecbalError(
            f"{name!r} is no figure name: use letters, digits, - and _, then .svg or .png."
        )
    fig = fig.figure if isinstance(fig, Axes) else fig
    name = name if name.endswith((".svg", ".png")) else f"{name}.svg"
    kind = name[-3:]
    target = figures_dir() / name
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    try:
        with replacing(target) as part, plt.style.context(STYLE):
            fig.savefig(part, format=kind, metadata=metadata, bbox_inches="tight")
    except OSError as error:
        raise RecbalError(f"Cannot write the figure {target}: {error}.") from error
    return target


__all__ = [
    "LINE_COLOURS",
    "LINE_STYLES",
    "MARKERS",
    "NEGATIVE",
    "OKABE_ITO",
    "PERIODS",
    "POSITIVE",
    "REFERENCE",
    "TIER_COLOURS",
    "figures_dir",
    "plot_counts",
    "plot_intervals",
    "plot_long_tail",
    "plot_lorenz",
    "plot_precision_recall",
    "plot_reliability",
    "plot_roc",
    "plot_weekly",
    "save_figure",
    "thin",
    "use_style",
]
