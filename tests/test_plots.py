"""Figures show what they are given: read back from what was drawn."""

import os

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from recbal_utils import evaluate, plots
from recbal_utils.diagnose import gini, lorenz, tiers
from recbal_utils.errors import RecbalError


@pytest.fixture(autouse=True)
def _no_screen():
    before = mpl.rcParams.copy()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    mpl.rcParams.update({k: v for k, v in before.items() if k != "backend"})


def scored(n=20_000, rate=0.05, seed=0, shift=1.5):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(int)
    return y, rng.normal(size=n) + shift * y


def line(ax, label):
    return next(x for x in ax.lines if x.get_label() == label)


def texts(ax):
    legend = ax.get_legend()
    return [t.get_text() for t in ax.texts] + (
        [t.get_text() for t in legend.texts] if legend else []
    )


def intervals(values=(0.9, 0.1), width=0.05, names=("ROC-AUC", "AP")):
    value = np.array(values)
    return pd.DataFrame(
        {"value": value, "low": value - width, "high": value + width}, index=list(names)
    )


CURVE = pd.DataFrame({"predicted": [0.001, 0.01, 0.1], "observed": [0.0, 0.02, 0.09]})
WEEKS = pd.DataFrame(
    {"rate": np.linspace(1, 2, 53), "rows": np.linspace(3, 1, 53)}, index=range(1, 54)
)

EVERY_PLOT = {
    "lorenz": lambda ax: plots.plot_lorenz([1, 2, 3], ax=ax),
    "roc": lambda ax: plots.plot_roc(*scored(500), ax=ax),
    "precision_recall": lambda ax: plots.plot_precision_recall(*scored(500), ax=ax),
    "reliability": lambda ax: plots.plot_reliability(CURVE, ax=ax),
    "reliability_log": lambda ax: plots.plot_reliability(CURVE, ax=ax, log=True),
    "long_tail": lambda ax: plots.plot_long_tail([9, 5, 1, 0], ax=ax),
    "intervals": lambda ax: plots.plot_intervals(intervals(), ax=ax),
    "weekly": lambda ax: plots.plot_weekly(WEEKS, ax=ax),
    "counts": lambda ax: plots.plot_counts({"impressions": 1000, "conversions": 1}, ax=ax),
    "critical_difference": lambda ax: plots.plot_critical_difference(
        pd.Series({"a": 1.2, "b": 1.8}), n_sets=5, ax=ax
    ),
}


# --- what all have in common -------------------------------------------------------


@pytest.mark.parametrize("draw", EVERY_PLOT.values(), ids=EVERY_PLOT)
def test_axes_are_named_and_have_no_title(draw):
    ax = draw(None)
    assert len(ax.get_xlabel()) > 3
    assert ax.get_ylabel() or [t.get_text() for t in ax.get_yticklabels()]
    assert ax.get_title() == ax.get_title(loc="left") == ""


@pytest.mark.parametrize("draw", EVERY_PLOT.values(), ids=EVERY_PLOT)
def test_a_new_figure_has_the_style_and_leaves_the_session_alone(draw):
    before = mpl.rcParams["axes.spines.top"]
    ax = draw(None)
    assert to_hex(ax.figure.get_facecolor()) == "#ffffff"
    assert tuple(ax.figure.get_size_inches()) == (7, 4)
    assert not ax.spines["top"].get_visible()
    assert mpl.rcParams["axes.spines.top"] == before


@pytest.mark.parametrize("draw", EVERY_PLOT.values(), ids=EVERY_PLOT)
def test_the_axes_given_are_drawn_on(draw):
    figure, (left, right) = plt.subplots(1, 2)
    assert draw(left) is left
    assert left.has_data()
    assert not right.has_data()
    assert figure.axes == [left, right]
    with pytest.raises(RecbalError, match="ax must be matplotlib Axes"):
        draw("here")


@pytest.mark.parametrize("draw", EVERY_PLOT.values(), ids=EVERY_PLOT)
def test_words_stay_inside_a_saved_figure(draw):
    figure = draw(None).figure
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 > -0.05
    assert box.x1 < 7.05
    assert box.y0 > -0.05
    assert box.y1 < 4.05


def test_use_style():
    plots.use_style()
    assert mpl.rcParams["figure.dpi"] == 120
    assert mpl.rcParams["font.family"] == ["DejaVu Sans"]
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()
    assert [to_hex(c).upper() for c in cycle["color"]] == list(plots.LINE_COLOURS)
    assert cycle["linestyle"] == list(plots.LINE_STYLES)


# --- colours -----------------------------------------------------------------------


def luminance(colour):
    """Relative luminance by WCAG 2."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(colour):
    return 1.05 / (luminance(colour) + 0.05)


def test_contrast_has_its_known_values():
    assert contrast("#000000") == pytest.approx(21)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01)


def test_lines_and_words_stand_out_from_white():
    lines = {*plots.LINE_COLOURS, plots.POSITIVE, plots.NEGATIVE, *plots.TIER_COLOURS.values()}
    assert min(map(contrast, lines)) >= 3
    words = {plots.TEXT, plots.REFERENCE, *(plots._ink(c) for c in plots.LINE_COLOURS)}
    assert min(map(contrast, words)) >= 4.5


# Deuteranopia and protanopia at full strength: Machado, Oliveira & Fernandes (2009),
# IEEE TVCG 15(6), matrices on linear RGB.
COLOUR_BLIND = {
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab(colour, matrix):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ seen / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_line_colours_differ_for_the_colour_blind(kind):
    seen = [lab(colour, COLOUR_BLIND[kind]) for colour in plots.LINE_COLOURS]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 10


def test_lines_differ_without_colour():
    y, p = scored(500)
    ax = plots.plot_roc({str(i): (y, p + i) for i in range(10)})
    looks = [(x.get_color(), x.get_linestyle()) for x in ax.lines if x.get_label() != "_chance"]
    assert len(set(looks)) == 10
    assert len({style for _, style in looks[:4]}) == 4


# --- curves ------------------------------------------------------------------------


def test_thin_keeps_ends_extremes_and_order():
    x = np.linspace(0, 1, 100_000)
    y = np.sin(40 * x)
    y[54_321] = 7
    few_x, few_y = plots.thin(x, y, n_bins=500)
    assert len(few_x) <= 2000
    assert (few_x[0], few_x[-1], few_y.max()) == (0, 1, 7)
    assert (np.diff(few_x) > 0).all()
    assert set(few_y) <= set(y)
    assert np.abs(np.interp(x, few_x, few_y) - y)[np.abs(x - x[54_321]) > 0.01].max() < 0.01


def test_thin_leaves_short_curves_and_lines_that_go_straight_up():
    assert [list(a) for a in plots.thin([0, 1], [2, 3])] == [[0, 1], [2, 3]]
    x, y = plots.thin(np.zeros(9000), np.arange(9000), n_bins=10)
    assert (x == 0).all()
    assert (y[0], y[-1]) == (0, 8999)


def test_roc_of_many_rows_is_small_and_has_the_same_area():
    y, p = scored(1_000_000, shift=1.2)
    ax = plots.plot_roc({"model": (y, p)})
    area = roc_auc_score(y, p)
    x, height = line(ax, f"model (area {area:.3f})").get_data()
    assert len(x) <= 4000
    assert auc(x, height) == pytest.approx(area, abs=5e-4)


def test_roc_of_one_curve_shows_its_area():
    ax = plots.plot_roc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    assert "area 0.750" in texts(ax)
    assert list(line(ax, "area 0.750").get_ydata())[-1] == 1


def test_precision_recall_shows_the_curve_and_its_prevalence():
    y, p = scored(200_000)
    ax = plots.plot_precision_recall({"a": (y, p), "b": (y, p**3)})
    drawn = line(ax, f"a (AP {average_precision_score(y, p):.3f})")
    precision, recall, _ = precision_recall_curve(y, p)
    at = np.linspace(0.1, 0.9, 9)
    expected = np.interp(at, recall[::-1], precision[::-1])
    assert np.interp(at, *drawn.get_data()) == pytest.approx(expected, abs=2e-3)
    assert len(drawn.get_xdata()) <= 4000
    assert line(ax, "_prevalence").get_ydata()[0] == pytest.approx(y.mean())
    assert f"prevalence {y.mean():.3g}" in texts(ax)
    assert sum(x.get_label() == "_prevalence" for x in ax.lines) == 1


@pytest.mark.parametrize("plot", [plots.plot_roc, plots.plot_precision_recall])
@pytest.mark.parametrize(
    ("y", "p", "says"),
    [
        ([0, 1], [[0.1], [0.2]], "flatten"),
        ([0, 1], [0.1], "one length"),
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([1, 1], [0.1, 0.2], "one class"),
        ([], [], "one class"),
        (["a", "b"], [0.1, 0.2], "numbers"),
        ([0, 1], None, "mapping"),
        ({}, None, "nothing to draw"),
        ({"a": [0, 1, 1]}, None, "pair"),
    ],
)
def test_curves_that_are_none(plot, y, p, says):
    with pytest.raises(RecbalError, match=says):
        plot(y, p)
    assert not plt.get_fignums()


def test_reliability_shows_bins_and_intervals():
    frame = CURVE.assign(low=[0, 0.01, 0.08], high=[0.001, 0.03, 0.1])
    ax = plots.plot_reliability({"raw": frame, "corrected": CURVE * 0.5})
    assert line(ax, "raw").get_xydata().tolist() == CURVE.to_numpy().tolist()
    ends = [[seg[0][1], seg[1][1]] for seg in ax.collections[0].get_segments()]
    assert ax.get_ylim()[1] > 0.1
    assert ends == frame[["low", "high"]].to_numpy().tolist()
    assert {"raw", "corrected", "calibrated"} <= set(texts(ax))
    assert line(ax, "raw").get_marker() != line(ax, "corrected").get_marker()
    diagonal = line(ax, "calibrated")
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())


def test_reliability_on_logarithmic_axes_keeps_the_empty_bins_in_sight():
    ax = plots.plot_reliability({"model": CURVE}, log=True)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert line(ax, "model").get_xydata().tolist() == [[0.01, 0.02], [0.1, 0.09]]
    assert line(ax, "_no positive").get_xydata().tolist() == [[0.001, ax.get_ylim()[0]]]
    assert line(ax, "_no positive").get_visible()


def test_reliability_takes_what_evaluate_gives():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 30, 5000)
    curve = evaluate.reliability_curve((rng.random(5000) < p).astype(int), p, n_bins=10)
    ax = plots.plot_reliability({"model": curve})
    assert line(ax, "model").get_ydata() == pytest.approx(curve["observed"].to_numpy())


@pytest.mark.parametrize(
    "frame",
    [
        [1, 2],
        CURVE.drop(columns="observed"),
        CURVE.iloc[:0],
        CURVE * 100,
        CURVE * np.nan,
        CURVE * 0,
    ],
)
def test_reliability_that_is_none(frame):
    with pytest.raises(RecbalError):
        plots.plot_reliability(frame)


# --- concentration -----------------------------------------------------------------


def test_lorenz_shows_its_curve_and_gini():
    counts = [3, 1, 0, 0]
    ax = plots.plot_lorenz({"products": counts}, units="products", total="conversions")
    assert line(ax, "products").get_xydata().tolist() == lorenz(counts).to_numpy().tolist()
    assert f"products, Gini {gini(counts):.2f}" in texts(ax)
    assert "products" in ax.get_xlabel()
    assert "conversions" in ax.get_ylabel()


def test_lorenz_takes_a_curve_and_thins_it():
    counts = np.random.default_rng(0).pareto(1, 100_000)
    ax = plots.plot_lorenz(lorenz(counts))
    assert len(line(ax, "_one").get_xdata()) <= 4000
    assert f"Gini {gini(counts):.2f}" in texts(ax)


@pytest.mark.parametrize("data", [[], [0, 0], [-1, 2], {}, pd.DataFrame({"x": [1]})])
def test_lorenz_that_is_none(data):
    with pytest.raises(RecbalError):
        plots.plot_lorenz(data)


def test_long_tail_shows_ranks_and_tiers():
    counts = pd.Series([1, 100, 10, 5, 2, 1, 0, 0, 0, 0])
    ax = plots.plot_long_tail(counts)
    x, y = ax.lines[0].get_data()
    assert x == pytest.approx([1, 2, 3, 4, 5, 6])
    assert y == pytest.approx([100, 10, 5, 2, 1, 1])
    bands = {p.get_label(): p for p in ax.patches}
    ends = {name: (p.get_x(), p.get_x() + p.get_width()) for name, p in bands.items()}
    assert ends == {"head": (0.8, 2), "mid": (2, 5), "tail": (5, 10)}
    share = counts.groupby(tiers(counts)).sum() / counts.sum()
    assert {f"{name}\n{share[name]:.0%}" for name in ("head", "mid")} <= set(texts(ax))
    assert "4 of 10 have none" in ax.get_xlabel()


# --- tables ------------------------------------------------------------------------


def test_intervals_show_value_low_and_high():
    a, b = intervals(), intervals((0.8, 0.2))
    ax = plots.plot_intervals({"a": a, "b": b}, reference=0, xlabel="Score")
    assert line(ax, "a").get_xdata().tolist() == [0.9, 0.1]
    assert line(ax, "b").get_xdata().tolist() == [0.8, 0.2]
    whiskers = [[s[0][0], s[1][0]] for s in ax.collections[0].get_segments()]
    assert whiskers == a[["low", "high"]].to_numpy().tolist()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ROC-AUC", "AP"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert {"a", "b"} <= set(texts(ax))
    assert line(ax, "a").get_marker() != line(ax, "b").get_marker()


def test_intervals_put_a_row_of_the_same_name_in_the_same_place():
    ax = plots.plot_intervals({"a": intervals(), "b": intervals(names=("AP", "ROC-AUC"))})
    assert np.round(line(ax, "a").get_ydata()).tolist() == [0, 1]
    assert np.round(line(ax, "b").get_ydata()).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (intervals().drop(columns="low"), "lacks the column"),
        (intervals((np.nan, 0.1)), "missing or infinite"),
        (intervals(width=-0.1), "outside its own"),
        (intervals(names=("AP", "AP")), "names a row twice"),
        (intervals().iloc[:0], "no rows"),
    ],
)
def test_intervals_that_are_none(frame, says):
    with pytest.raises(RecbalError, match=says):
        plots.plot_intervals(frame)


def test_weekly_shows_lines_and_shaded_weeks():
    ax = plots.plot_weekly(WEEKS.rename_axis("week").reset_index(), ylabel="Relative to week 1")
    assert line(ax, "rate").get_ydata().tolist() == WEEKS["rate"].tolist()
    assert line(ax, "rate").get_xdata().tolist() == list(range(1, 54))
    bands = {p.get_label(): (p.get_x(), p.get_x() + p.get_width()) for p in ax.patches}
    assert bands == {
        "_train": (19.5, 40.5),
        "_choose": (40.5, 44.5),
        "_test": (44.5, 48.5),
        "_closed": (48.5, 52.5),
    }
    assert {"train", "choose", "test", "closed", "rate", "rows"} <= set(texts(ax))


def test_weekly_shades_only_weeks_that_are_there():
    ax = plots.plot_weekly(WEEKS.loc[30:42, "rate"])
    bands = {p.get_label(): (p.get_x(), p.get_x() + p.get_width()) for p in ax.patches}
    assert bands == {"_train": (29.5, 40.5), "_choose": (40.5, 42.5)}
    assert not plots.plot_weekly(WEEKS, periods=None).patches


def test_labels_beside_lines_do_not_lie_on_one_another():
    level = pd.DataFrame({name: [1.0, 1.0] for name in "abcd"}, index=[1, 2])
    ax = plots.plot_weekly(level, periods=None)
    heights = sorted(t.get_position()[1] for t in ax.texts)
    assert min(np.diff(heights)) >= 0.06


def test_weekly_that_is_none():
    with pytest.raises(RecbalError, match="indexed by week"):
        plots.plot_weekly(WEEKS.set_axis([f"w{i}" for i in WEEKS.index]))
    with pytest.raises(RecbalError, match="DataFrame"):
        plots.plot_weekly([1, 2])


def test_counts_show_bars_and_numbers():
    ax = plots.plot_counts({"impressions": 318_957_363, "conversions": 316_721, "lost": 0})
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends[:2] == [318_957_363, 316_721]
    assert ax.patches[2].get_width() == 0
    assert ax.get_xscale() == "log"
    assert {"318,957,363", "316,721", "0"} <= set(texts(ax))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["impressions", "conversions", "lost"]


@pytest.mark.parametrize("data", [{}, {"a": -1}, {"a": 0}, {"a": np.nan, "b": 1}, {"a": "x"}])
def test_counts_that_are_none(data):
    with pytest.raises(RecbalError):
        plots.plot_counts(data)


# --- files -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBAL_FIGURES_DIR", str(tmp_path / "figures"))
    return tmp_path / "figures"


def test_a_saved_figure_is_whole_and_the_same_each_time(folder):
    ax = plots.plot_lorenz([1, 2, 3])
    path = plots.save_figure(ax, "lorenz")
    first = path.read_bytes()
    assert path == folder / "lorenz.svg"
    assert first.endswith(b"</svg>\n")
    assert plots.save_figure(ax.figure, "lorenz.svg").read_bytes() == first
    assert plots.save_figure(ax, "lorenz.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(folder)) == ["lorenz.png", "lorenz.svg"]


def test_a_figure_that_fails_leaves_the_old_one(folder, monkeypatch):
    ax = plots.plot_lorenz([1, 2, 3])
    before = plots.save_figure(ax, "kept").read_bytes()

    def full_disk(part, **_):
        with open(part, "w") as file:
            file.write("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(ax.figure, "savefig", full_disk)
    with pytest.raises(RecbalError, match="no space left"):
        plots.save_figure(ax, "kept")
    assert (folder / "kept.svg").read_bytes() == before
    assert os.listdir(folder) == ["kept.svg"]


@pytest.mark.parametrize("name", ["../out", "a/b", "", "a.pdf", "a b"])
def test_names_that_are_none(folder, name):
    with pytest.raises(RecbalError, match="no figure name"):
        plots.save_figure(plots.plot_lorenz([1, 2]), name)
    assert not folder.exists()


def test_figures_go_to_the_book_they_are_made_in(tmp_path, monkeypatch):
    monkeypatch.delenv("RECBAL_FIGURES_DIR", raising=False)
    (tmp_path / "_config.yml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert plots.figures_dir() == tmp_path / "_build" / "figures"


RANKED = pd.Series({"SMOTE": 2.0, "nothing": 3.6, "weights": 1.4, "copies": 3.0})


def test_critical_difference_joins_what_is_alike():
    ax = plots.plot_critical_difference(RANKED, n_sets=14, highlight="nothing")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["weights", "SMOTE", "copies", "nothing"]
    bars = [tuple(x.get_xdata()) for x in ax.lines if x.get_label() == "alike"]
    assert bars == [(1.4, 2.0), (2.0, 3.0), (3.0, 3.6)]
    (scale,) = [x.get_xdata() for x in ax.lines if x.get_label() == "critical"]
    assert scale[1] - scale[0] == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert "critical difference 1.25" in texts(ax)
    marked = [x for x in ax.lines if to_hex(x.get_color()) == plots.POSITIVE.lower()]
    assert [x.get_xdata()[0] for x in marked] == [3.6]


@pytest.mark.parametrize("wrong", [{"a": 1.0}, {"a": 0.5, "b": 2.5}, {"a": 1.0, "b": np.nan}])
def test_critical_difference_refuses_what_are_no_ranks(wrong):
    with pytest.raises(RecbalError, match="ranks of 2 methods"):
        plots.plot_critical_difference(pd.Series(wrong), n_sets=5)
