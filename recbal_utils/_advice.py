"""From the figures of a table to advice; and the report that shows both."""

from __future__ import annotations

import html
import re
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd

# Majority rows per minority row. KEEL's repository sorts its imbalanced sets at 1.5 and 9.
IMBALANCED, STRONGLY_IMBALANCED = 1.5, 9.0
# Share of the minority; Google's machine-learning guide calls less than 1 % extreme.
EXTREME_SHARE = 0.01
# Judgement: below, the rate itself is known to about ±20 % at best (1.96 / √100).
FEW_POSITIVES = 100
# Judgement, cf. Cameron & Miller (2015), J. Human Resources 50(2): with fewer than about 20 to
# 50 clusters, clustered intervals come out too narrow.
FEW_GROUPS = 50
# The old rule of ten events per variable (Peduzzi et al. 1996, J. Clin. Epidemiol. 49); how far
# it holds is disputed. Judgement.
POSITIVES_PER_FEATURE = 10
# Judgement: from here on rows, not positives, decide what a training costs.
LARGE_ROWS = 10_000_000
MANY_POSITIVES = 10_000
# Judgement, with He et al. (2014, ADKDD), whose best keep rate was .025, and Wang, Zhang & Wang
# (NeurIPS 2021), by whom 1:1 throws information away.
KEEP_NEGATIVES = (5, 20)
# Judgement: Gini from which one average over all units mostly tells about the head.
LONG_TAIL_GINI = 0.6
# Judgement: how far Gini must lie above that of an even throw, as a share of the way to 1.
LONG_TAIL_EXCESS = 0.3
# Judgement: share of late rows with an unseen unit from which to judge them apart.
COLD_SHARE = 0.05

Z95 = 1.96


@dataclass(frozen=True)
class Line:
    """One line of advice: what was asked, the answer, and the figure that led to it."""

    question: str
    answer: str
    figure: str


def advise(facts, need=None, costs=None) -> list[Line]:
    """The decision of the flow chart: is it imbalanced, does it matter, what first."""
    return [
        _is_imbalanced(facts["imbalance"]),
        _does_it_matter(facts),
        *_repairs(facts["noise"]),
        *_rows_first(facts),
        *_needs(facts, need, costs),
        *_tails_first(facts),
        *_cold_first(facts),
    ]


FIRST = "What first?"


def _minority(counts) -> tuple[str, float, float]:
    """Name of the rarer class, its effective number, and majority rows per row of it."""
    if counts.prevalence <= 0.5:
        return "positives", counts.effective_positives, counts.ratio
    return "negatives", counts.effective_negatives, 1 / counts.ratio


def _is_imbalanced(counts) -> Line:
    rare, _, ratio = _minority(counts)
    share = min(counts.prevalence, 1 - counts.prevalence)
    if ratio < IMBALANCED:
        answer = "No: the classes are of about the same size."
    elif ratio < STRONGLY_IMBALANCED:
        answer = f"Mildly: {rare} are the rarer class."
    elif share >= EXTREME_SHARE:
        answer = f"Yes: {rare} are rare."
    else:
        answer = f"Yes, extremely: {rare} are fewer than one row in a hundred."
    figure = (
        f"prevalence {percent(counts.prevalence)}, {number(counts.ratio)} negatives per positive"
    )
    return Line("Is it imbalanced?", answer, figure)


def _does_it_matter(facts) -> Line:
    counts, features = facts["imbalance"], facts["n_features"]
    rare, n, ratio = _minority(counts)
    figure = f"{_counted(facts, n)} {rare}: their rate is known to {_certainty(facts, n)}"
    if features:
        figure += f"; {number(n / features)} per feature"
    if n < FEW_POSITIVES:
        answer = f"Too few {rare} to tell: no method can be judged on so few."
    elif _few_groups(facts):
        figure = (
            f"if all {facts['group']} repeat themselves, the positives are worth "
            f"{number(counts.effective_groups)} independent ones"
        )
        answer = "Too few groups to tell: intervals over so few are not to be trusted."
    elif features and n / features < POSITIVES_PER_FEATURE:
        answer = f"The number of {rare} matters, not the ratio: there are few for so many features."
    elif ratio < IMBALANCED:
        answer = "No: there is nothing to balance."
    else:
        always = max(counts.prevalence, 1 - counts.prevalence)
        figure += f"; a model that always answers the larger class is right in {percent(always)}"
        answer = (
            "Not for learning, with so many: the ratio alone does not harm ranking or "
            "probabilities. It matters for accuracy, for a threshold of 0.5, and for the cost of "
            "training."
        )
    return Line("Does it matter?", answer, figure)


def _counted(facts, n) -> str:
    """The number of a class, called effective only where weights make it Kish's."""
    return f"{number(n)} effective" if facts["weighted"] else number(n)


def _certainty(facts, n) -> str:
    """Relative 95 % error of the rate, between independent rows and groups of mere copies."""
    groups = facts["imbalance"].effective_groups
    by_rows = f"±{100 * Z95 / np.sqrt(n):.2g} % of itself"
    if groups is None or facts["imbalance"].prevalence > 0.5 or groups >= n:
        return f"{by_rows} if rows are independent"
    by_groups = f"±{100 * Z95 / np.sqrt(groups):.2g} %"
    return (
        f"{by_rows} if rows are independent, and to {by_groups} if all {facts['group']} repeat "
        "themselves"
    )


def _few_groups(facts) -> bool:
    groups = facts["imbalance"].effective_groups
    return groups is not None and groups < FEW_GROUPS and facts["imbalance"].prevalence <= 0.5


def _repairs(noise) -> list[Line]:
    """What is wrong in the data comes before any balancing; missing values need not be wrong."""
    wrong = noise[(noise["rows"] > 0) & (noise["check"] != "missing values")]
    wrong = wrong.groupby(["check", "what_to_do"], sort=False, as_index=False).agg(
        where=("where", ", ".join), rows=("rows", "max"), share=("share", "max")
    )
    return [
        Line(
            FIRST,
            f"{_sentence(row.check)} ({row.where}): {row.what_to_do}.",
            f"{row.rows:,} rows ({percent(row.share)})",
        )
        for row in wrong.itertuples()
    ]


def _rows_first(facts) -> list[Line]:
    counts = facts["imbalance"]
    rare, n, _ = _minority(counts)
    features = facts["n_features"]
    if n < FEW_POSITIVES or (features and n / features < POSITIVES_PER_FEATURE):
        return [_few_line(facts, rare, n)]
    negatives = counts.rows - counts.positives
    per_positive = negatives / counts.positives
    if (
        counts.rows >= LARGE_ROWS
        and n >= MANY_POSITIVES
        and per_positive > KEEP_NEGATIVES[1]
        and not facts["weighted"]
    ):
        return [_down_sample_line(counts, negatives)]
    figure = f"{counts.rows:,} rows, {number(per_positive)} negatives per positive among them"
    if facts["weighted"]:
        return [
            Line(
                FIRST,
                "The rows are a sample with weights: train and evaluate with the weights, or "
                "train without and add ln β (β: the keep rate of negatives) to the log-odds.",
                f"{counts.rows:,} rows stand for {number(counts.represents)}",
            )
        ]
    return [
        Line(FIRST, "Train on all rows as they are, as the baseline for any balancing.", figure)
    ]


def _few_line(facts, rare, n) -> Line:
    features = facts["n_features"]
    figure = f"{_counted(facts, n)} {rare}"
    if n < FEW_POSITIVES:
        figure += f" (few: under {FEW_POSITIVES}, a judgement)"
    else:
        figure += (
            f", {number(n / features)} for each of {features} features (few: under "
            f"{POSITIVES_PER_FEATURE}, a judgement)"
        )
    return Line(
        FIRST,
        f"Collect more {rare} (longer time, a nearby label), regularise, or take a simpler model. "
        "Do not throw the other rows away, and do not expect synthetic rows to add information.",
        figure,
    )


def _down_sample_line(counts, negatives) -> Line:
    low, high = KEEP_NEGATIVES
    beta = float(f"{high * counts.positives / negatives:.3g}")  # the logarithm is of what is shown
    return Line(
        FIRST,
        f"To save rows, keep every positive and {low} to {high} negatives for each, for example "
        f"at a keep rate β = {beta:g}; then add ln β = {np.log(beta):.2f} to the predicted "
        "log-odds. This saves computing; it does not rank better than all rows would.",
        f"{counts.rows:,} rows would become {number(counts.positives * (1 + high))} at {high} to 1",
    )


def _needs(facts, need, costs) -> list[Line]:
    counts = facts["imbalance"]
    lines = {
        "ranking": Line(
            "For ranking?",
            "Do not balance at first; compare any balancing with none, on a test set at the "
            "natural rate, by average precision and by NDCG and recall within a visit.",
            f"chance has an average precision of {percent(counts.prevalence)} here, the prevalence",
        ),
        "probabilities": Line(
            "For probabilities?",
            "Do not resample, or undo the shift by adding ln β to the log-odds; check normalised "
            "entropy and mean predicted ÷ observed rate.",
            f"after balancing to 1:1, uncorrected odds are {number(counts.ratio)} times what they "
            "should be",
        ),
        "decision": _decision(counts, costs),
    }
    return [lines[need]] if need else list(lines.values())


def _decision(counts, costs) -> Line:
    question = "For a decision?"
    if costs is None:
        return Line(
            question,
            "Take the threshold from the costs, C_FP ÷ (C_FP + C_FN), on calibrated probabilities; "
            "not 0.5, and not by balancing.",
            f"a probability of 0.5 is {number(0.5 / counts.prevalence)} times the prevalence",
        )
    threshold = costs[0] / (costs[0] + costs[1])
    return Line(
        question,
        f"Choose rows with a calibrated probability above {threshold:.3g}; do not balance for it.",
        f"C_FP ÷ (C_FP + C_FN) = {costs[0]:g} ÷ ({costs[0]:g} + {costs[1]:g})",
    )


def _tails_first(facts) -> list[Line]:
    lines = []
    for unit, frame in facts["long_tail"].items():
        gini, chance = frame.loc["all", "gini"], facts["gini_by_chance"][unit]
        if gini < LONG_TAIL_GINI:
            answer = f"No long tail to treat apart in {unit}."
        elif _beyond_chance(gini, chance, frame.loc["all", "units"]):
            answer = f"Report head, mid and tail of {unit} apart: an average tells of the head."
        else:
            answer = f"Too few positives per {unit} to tell a long tail from chance."
        figure = (
            f"Gini {gini:.2f}, and {chance:.2f} if chance threw the positives evenly over the "
            f"{unit}; the top 20 % hold {percent(frame.loc['head', 'share_of_total'])} of them"
        )
        lines.append(Line("Long tail?", answer, figure))
    return lines


def _beyond_chance(gini, chance, units) -> bool:
    """Far above an even throw, and further than such throws scatter (error under chance / √n)."""
    return gini - chance >= max(LONG_TAIL_EXCESS * (1 - chance), 2 * chance / np.sqrt(units))


def _cold_first(facts) -> list[Line]:
    lines = []
    for unit, cold in facts["cold_start"].iterrows():
        if cold["unseen_share_of_rows"] >= COLD_SHARE:
            answer = f"Judge unseen {unit} apart, with features that do not need its history."
        elif cold["unbought_share_of_rows"] >= COLD_SHARE:
            answer = (
                f"Judge {unit} without an earlier positive apart: what was counted of its "
                "positives says nothing yet."
            )
        else:
            answer = f"Hardly any new {unit}: hold some out to learn how new ones fare."
        shares = {name: percent(share) for name, share in cold.items() if "share" in name}
        figure = (
            f"{shares['unseen_share_of_rows']} of the rows and "
            f"{shares['unseen_share_of_positives']} of the positives from {facts['time']} "
            f"{facts['late_from']} on are of unseen {unit}; of {unit} without a positive before: "
            f"{shares['unbought_share_of_rows']} and {shares['unbought_share_of_positives']}"
        )
        lines.append(Line("Cold start?", answer, figure))
    return lines


# --- words -------------------------------------------------------------------------


def percent(share) -> str:
    """A share as a percentage, to three digits of itself or of its distance from 100 %."""
    if not np.isfinite(share):
        return "unknown"
    rest = min(share, 1 - share) * 100
    if rest <= 0:
        return f"{100 * share:.0f} %"
    decimals = min(max(2 - int(np.floor(np.log10(rest))), 1), 10)
    return f"{100 * share:.{decimals}f} %"


def number(value) -> str:
    """A number for reading: thousands separated, one decimal below 10."""
    if not np.isfinite(value):
        return "unknown"
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _sentence(text) -> str:
    return text[0].upper() + text[1:]


# --- the report --------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Report:
    """What `diagnose.report` found. Shows itself in a notebook; `print` gives plain text.

    Attributes
    ----------
    lines : list of Line
        The advice: `question`, `answer`, `figure`, in the order of the flow.
    imbalance : Imbalance
    noise : DataFrame, see `diagnose.noise`
    long_tail : mapping of column to DataFrame, see `diagnose.long_tail`
    gini_by_chance : mapping of column to float
        Gini if chance threw the same positives evenly over the units.
    without_unit : mapping of column to int
        Rows without the unit, left out of its long tail and cold start.
    without_time : int
        Rows without a time, taken as early.
    cold_start : DataFrame indexed by column
        Of the late rows: `unseen_*` counts units without any earlier row,
        `unbought_*` units without an earlier positive.
    """

    label: str
    imbalance: object
    weighted: bool
    group: str | None
    n_features: int | None
    noise: pd.DataFrame
    duplicates_checked: bool
    long_tail: dict
    gini_by_chance: dict
    without_unit: dict
    without_time: int
    cold_start: pd.DataFrame
    late_from: object
    time: str | None
    lines: list = field(default_factory=list)

    @property
    def decision(self) -> dict:
        """The answers alone: `imbalanced`, `matters`, and `first`, a list."""
        imbalanced, matters, *rest = self.lines
        return {
            "imbalanced": imbalanced.answer,
            "matters": matters.answer,
            "first": [line.answer for line in rest],
        }

    def to_dict(self) -> dict:
        """Everything as plain Python values, ready for JSON."""
        late_from = self.late_from
        return {
            "label": self.label,
            "imbalance": asdict(self.imbalance),
            "long_tail": {str(k): _records(v) for k, v in self.long_tail.items()},
            "gini_by_chance": {str(k): v for k, v in self.gini_by_chance.items()},
            "cold_start": _records(self.cold_start),
            "late_from": late_from.item()
            if isinstance(late_from, np.generic)
            else _text(late_from),
            "noise": [_python(r) for r in self.noise.to_dict("records")],
            "lines": [asdict(line) for line in self.lines],
            "decision": self.decision,
        }

    def facts(self) -> list[tuple[str, str]]:
        """The figures, each with its name, for the first table of the report."""
        c = self.imbalance
        rows = [("Rows", f"{c.rows:,}"), ("Positives", f"{c.positives:,}")]
        if self.weighted:
            rows.append(("Rows they stand for", number(c.represents)))
        rows += [
            ("Prevalence", percent(c.prevalence)),
            ("Imbalance ratio (negatives per positive)", number(c.ratio)),
        ]
        if self.weighted:
            rows.append(("Effective positives, by weights", number(c.effective_positives)))
        if c.effective_groups is not None:
            worth = f"worth {number(c.effective_groups)} independent ones"
            rows.append((f"Positives, if all {self.group} repeat themselves", worth))
        rows.append(("Entropy of the rate (nats)", f"{c.entropy:.4g}"))
        rows += [
            (f"Gini of positives over {unit}", self._gini_text(unit, frame))
            for unit, frame in self.long_tail.items()
        ]
        rows += [
            (f"Rows without {unit}, left out", f"{n:,}") for unit, n in self.without_unit.items()
        ]
        if self.without_time:
            rows.append((f"Rows without {self.time}, taken as early", f"{self.without_time:,}"))
        return [*rows, ("Noise", self._noise_sentence())]

    def _gini_text(self, unit, frame) -> str:
        return f"{frame.loc['all', 'gini']:.2f} (by chance alone {self.gini_by_chance[unit]:.2f})"

    def _noise_sentence(self) -> str:
        found = self.noise[self.noise["rows"] > 0]
        clean = len(self.noise) - len(found)
        parts = [f"{r.check} ({r.where}): {r.rows:,}" for r in found.itertuples()]
        parts.append(f"{clean} of {len(self.noise)} checks found nothing")
        if not self.duplicates_checked:
            parts.append("repeated rows were not looked for")
        return "; ".join(parts)

    def _tables(self):
        advice = [(line.question, line.answer, line.figure) for line in self.lines]
        yield f"What {self.label} looks like", ("Figure", "Value"), self.facts()
        yield "What follows", ("Question", "Answer", "Because"), advice

    def _repr_markdown_(self) -> str:
        parts = []
        for title, head, rows in self._tables():
            parts += [
                f"**{_md(title)}**",
                "",
                _md_row(head),
                _md_row(["---"] * len(head), raw=True),
            ]
            parts += [*map(_md_row, rows), ""]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return "\n".join(_html_table(*table) for table in self._tables())

    def __str__(self) -> str:
        parts = []
        for title, _, rows in self._tables():
            parts += [title, *("  " + " | ".join(row) for row in rows), ""]
        return "\n".join(parts).rstrip()

    __repr__ = __str__


def _records(frame) -> dict:
    return {str(k): _python(v) for k, v in frame.to_dict("index").items()}


def _python(record) -> dict:
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in record.items()}
    return {
        str(k): None if isinstance(v, float) and not np.isfinite(v) else v
        for k, v in values.items()
    }


def _text(value):
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _md(text) -> str:
    """Text as Markdown shows it letter by letter; line breaks become spaces."""
    return re.sub(r"([\\`*_{}\[\]<>|$~^&#])", r"\\\1", " ".join(str(text).split()))


def _md_row(cells, raw=False) -> str:
    return "| " + " | ".join(str(c) if raw else _md(c) for c in cells) + " |"


SCOPE = ' scope="{}"'
# Notebook style sheets align table cells to the right, as for numbers; these are sentences.
LEFT = ' style="text-align: left"'


def _html_table(title, head, rows) -> str:
    def cells(tag, values, attribute=""):
        return "".join(
            f"<{tag}{attribute}{LEFT}>{html.escape(str(value))}</{tag}>" for value in values
        )

    body = "\n".join(
        f"<tr>{cells('th', [first], SCOPE.format('row'))}{cells('td', rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f'<table class="dataframe recbal-report">\n<caption>{html.escape(title)}</caption>\n'
        f"<thead><tr>{cells('th', head, SCOPE.format('col'))}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )
