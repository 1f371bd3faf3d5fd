"""The book's questions, asked of a reader's own log.

    log = logfile.open_log("clicks.csv", label="clicked", time="day", item="item_id")
    study = takehome.Study(log)
    study.short()         # a section; a notebook shows it
    study.write("report.html")

Nothing is computed before a section asks for it, and nothing twice. Sections hold figures over
many rows only: no id, and no row of a single user.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from recbal_utils import _trial, compare, diagnose, evaluate, plots
from recbal_utils._advice import FEW_GROUPS, FEW_POSITIVES, IMBALANCED, percent
from recbal_utils._advice import number as readable
from recbal_utils._atomic import replacing
from recbal_utils._encode import LEFT_OUT
from recbal_utils._findings import Findings
from recbal_utils._leaks import SUSPICIOUS_AUC
from recbal_utils._page import Code, Grid, Picture, Section, Words, page, picture
from recbal_utils._trial import CORRECTED, MODELS, PLAIN, UNDER, WEIGHTS, Settings
from recbal_utils.errors import RecbalError
from recbal_utils.logfile import shown

METRICS = {
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "normalised_entropy": "normalised entropy",
    "ratio": "predicted ÷ observed",
}
SHIFTED = ("normalised_entropy", "ratio")  # what a shift of the log-odds changes
MAX_LISTED = 60  # columns and problems in a table
RELIABILITY_BINS = 10
MAX_NAMES = 5  # in one cell of it
HARDLY_MORE = 0.05  # of the positives, above what chance gives the head


class Study(Findings):
    """Everything the report says about one log.

    Parameters
    ----------
    log : Log
        From `logfile.open_log`.
    costs : (float, float), optional
        Cost of a false positive and of a false negative, in one unit, both above 0. Without them
        a miss is taken to cost as much as there are negatives for each positive.
    settings : Settings, optional
        How many seeds, replicates and trees.

    Raises
    ------
    RecbalError
        If a cost is not positive and finite.
    """

    def short(self) -> Section:
        """The verdict, and the figures that matter most."""
        log, counts = self.log, self.imbalance
        words = [Words(self.verdict.sentence, strong=True)]
        if self.suspects:
            names = ", ".join(shown(s.name) for s in self.suspects[:5])
            words.append(
                Words(
                    f"Suspected leak: {names}. Such a column knows the answer; it was set aside, "
                    "and everything below is without it. Find out when it gets its value."
                )
            )
        words.append(
            Words(
                f"{log.rows:,} rows, {log.positives:,} of them positive ({shown(log.label)} is "
                f"{shown(log.positive)}): {readable(counts.ratio)} negatives per positive."
            )
        )
        return Section("In short", [*words, *self._sample_words(), *self._caution()])

    def _sample_words(self):
        if not self.log.sampled:
            return []
        return [
            Words(
                f"The file is larger than what is analysed: a sample of {len(self.log.y):,} rows "
                f"({percent(len(self.log.y) / self.log.rows)}) at the natural rate, with "
                f"{int(self.log.y.sum()):,} positives. --max-rows (MAX_ROWS=) takes more."
            )
        ]

    def _caution(self):
        counts = self.imbalance
        n = min(counts.positives, counts.rows - counts.positives)
        lines = []
        if n < FEW_POSITIVES and not self.too_few:
            lines.append(f"Only {n:,} {self.rare}: read the intervals, not the values.")
        units = len(np.unique(self.split.units))
        if self.split.unit != "row" and units < FEW_GROUPS:
            lines.append(
                f"Only {units} different values of the {self.split.unit}: intervals come out too "
                "narrow."
            )
        return [Words(line) for line in lines]

    def columns(self) -> Section:
        """Kinds of columns, and what the models use."""
        log = self.log
        rows = [
            (name, c.kind, percent(c.missing), f"{c.n_values:,}", self._use(name, c))
            for name, c in list(log.columns.items())[:MAX_LISTED]
        ]
        head = ["column", "kind", "missing", "different values", "use"]
        blocks = [Grid(pd.DataFrame(rows, columns=head), "Columns beside the label", head[2:4])]
        if len(log.columns) > MAX_LISTED:
            blocks.append(Words(f"The first {MAX_LISTED} of {len(log.columns):,} columns."))
        return Section("What is in the file", blocks)

    def _use(self, name, column):
        roles = [role for role, of in self.log.roles.items() if of == name]
        if name in {s.name for s in self.suspects}:
            use = "set aside: suspected leak"
        elif name in self.fleeting:
            use = "left out: its values in the test rows are new"
        elif name in self.skipped:
            use = "keeps rows of one value together; not in the models"
        elif column.kind in LEFT_OUT:
            use = "left out"
        elif name == self.log.roles.get("time"):
            use = "splits; hour and weekday in the models" if column.kind == "date" else "splits"
        else:
            use = "in the models"
        return f"{use} ({', '.join(roles)})" if roles else use

    def problems(self) -> Section:
        """What is wrong with the data, and what was done about it; suspected leaks by name."""
        found = _listed(self.log.problems)[:MAX_LISTED]
        head = ["problem", "where", "rows", "what was done"]
        blocks = [Words("Nothing wrong was found in the rows and columns.")]
        if found:
            blocks = [Grid(pd.DataFrame(found, columns=head), "Problems found", ["rows"])]
        return Section("Problems in the data", [*blocks, *self._leaks()])

    def _leaks(self):
        if not self.suspects:
            none = f"No column is a copy of the label or alone has an AUC above {SUSPICIOUS_AUC}"
            return [Words(f"{none}: no leak is suspected.")]
        rows = [(s.name, s.why, f"{s.auc:.4f}") for s in self.suspects]
        frame = pd.DataFrame(rows, columns=["column", "why", "ROC-AUC alone"])
        text = (
            "A column that nearly tells the answer was often written after it: a refund, a "
            "delivery, a time of purchase. If it is truly known beforehand, the task is solved "
            "without a model."
        )
        return [Grid(frame, "Suspected leaks, set aside", ["ROC-AUC alone"]), Words(text)]

    def balance(self) -> Section:
        """Prevalence, imbalance ratio, and how many positives the rows are worth."""
        c = self.imbalance
        rows = [
            ("rows read", f"{c.rows:,}"),
            ("positives", f"{c.positives:,}"),
            ("prevalence", percent(c.prevalence)),
            ("imbalance ratio (negatives per positive)", readable(c.ratio)),
        ]
        if c.effective_groups is not None:
            worth = f"worth {readable(c.effective_groups)} independent ones"
            rows.append((f"positives, if those of one {self.split.unit} repeat each other", worth))
        frame = pd.DataFrame(rows, columns=["figure", "value"])
        words = self._imbalance_words(c)
        return Section("Imbalance", [Grid(frame, "The label", ["value"]), Words(words)])

    def _imbalance_words(self, c):
        if max(c.ratio, 1 / c.ratio) < IMBALANCED:
            return "The classes are of about the same size: there is nothing to balance."
        n = min(c.positives, c.rows - c.positives)
        return (
            f"What limits a model is less the ratio than the number of {self.rare}: with {n:,} "
            f"of them even their rate is known to ±{196 / np.sqrt(n):.2g} % only, if rows are "
            "independent."
        )

    def newcomers(self) -> Section:
        """Cold start and long tail of the user and item columns."""
        units = {r: self.log.roles[r] for r in ("user", "item") if r in self.log.roles}
        blocks = [*self._cold_start(units), *self._tails(units)]
        none = [
            Words("No user or item column was named (--user, --item; USER=, ITEM=): not looked at.")
        ]
        return Section("New and popular: cold start and long tail", blocks or none)

    def _cold_start(self, units):
        test = self.split.test
        if not units or not 0 < self.log.y[test].sum() < test.sum():
            return []
        names = list(dict.fromkeys(units.values()))
        table = self.log.frame[names].assign(**{_LABEL: self.log.y})
        found = diagnose.cold_start(table[~test], table[test], names, _LABEL)
        frame = pd.DataFrame(
            {
                "column": found.index,
                "unseen values": [f"{n:,}" for n in found["unseen_values"]],
                "share of test rows": found["share_of_rows"].map(percent),
                "share of test positives": found["share_of_positives"].map(percent),
                "rate, seen": found["rate_seen"].map(_rate),
                "rate, unseen": found["rate_unseen"].map(_rate),
            }
        )
        caption = "Test rows whose user or item the training rows do not hold"
        return [Grid(frame, caption, list(frame.columns[1:]))]

    def _tails(self, units):
        blocks = []
        for name in dict.fromkeys(units.values()):
            table = pd.DataFrame({"unit": self.log.frame[name], _LABEL: self.log.y}).dropna()
            if table[_LABEL].nunique() < 2:
                continue
            share, by_chance = self._head_share(table), self._head_share(_shuffled(table))
            told = (
                "hardly more than chance: positives are few for so many values."
                if share - by_chance < HARDLY_MORE
                else "judge head and tail apart, as an average tells of the head."
            )
            blocks.append(
                Words(
                    f"The top 20 % of {shown(name)} hold {percent(share)} of the positives; by "
                    f"chance it would be {percent(by_chance)}: {told}"
                )
            )
        return blocks

    @staticmethod
    def _head_share(table):
        return diagnose.long_tail(table, "unit", _LABEL).loc["head", "share_of_total"]

    def judged(self) -> Section:
        """How rows were split, and what the intervals are over."""
        test, y = self.split.test, self.log.y
        rows = [
            (name, f"{mask.sum():,}", f"{int(y[mask].sum()):,}", percent(y[mask].mean()))
            for name, mask in {"training": ~test, "test": test}.items()
        ]
        frame = pd.DataFrame(rows, columns=["rows for", "rows", "positives", "prevalence"])
        text = (
            f"Test: {self.split.how}. It is never balanced, so its rate is the natural one. "
            f"Intervals (95 %) draw {self._drawn()}, {self.settings.n_replicates:,} times. "
            "The test chooses nothing: which of the two models is used is chosen on training "
            "rows, set aside in the same way."
        )
        return Section(
            "How it was judged",
            [Words(text), *self._hint(), Grid(frame, "The split", list(frame.columns[1:]))],
        )

    def _drawn(self):
        return "rows" if self.split.unit == "row" else f"every {self.split.unit} as a whole"

    def _hint(self):
        dates = [shown(name) for name, c in self.log.columns.items() if c.kind == "date"]
        if "time" in self.log.roles or not dates:
            return []
        found = ", ".join(dates[:3])
        return [
            Words(
                f"There are dates in {found}. With --time (TIME=) the last rows are the test, as "
                "in use; a test at random is too easy where the world moves."
            )
        ]

    def comparison(self) -> Section:
        """Nothing, weights, over- and under-sampling on this log, with intervals."""
        title = "Is balancing worth it here?"
        if self.too_few:
            return Section(title, [Words(self.too_few.sentence)])
        blocks = [Words(self.verdict.sentence), self._gains_figure()]
        blocks += [self._results(name) for name in self._models_best_first()]
        text = (
            "ROC-AUC and average precision judge the order of rows, normalised entropy the "
            "probabilities: 1 is what knowing only the rate gives, lower is better. After "
            'balancing, probabilities are too high by construction; "corrected" shifts them '
            "back to the natural rate, which leaves the order as it is."
        )
        return Section(title, [*blocks, Words(text)])

    def _results(self, name):
        """One row for each way; what correction changes stands beside what it was."""
        found = self.trial.summary()
        cells = compare.table(found, [*METRICS, "seconds"])
        rows = []
        for way in self.trial.ways:
            method = f"{name}: {way}"
            after = f"{method}{CORRECTED}"
            row = {"trained on": way} | {METRICS[m]: cells.loc[method, m] for m in METRICS}
            row[METRICS["average_precision"]] = _fine(found.loc[(method, "average_precision")])
            if after in cells.index:
                row |= {f"{METRICS[m]}{CORRECTED}": cells.loc[after, m] for m in SHIFTED}
            rows.append({**row, "seconds": f"{found.loc[(method, 'seconds'), 'value']:.2g}"})
        frame = pd.DataFrame(rows).fillna("")
        head = [c for c in frame.columns if c != "seconds"]
        caption = f"The {name} on the test rows: value [95 % interval]"
        return Grid(frame[[*head, "seconds"]], caption, [*head[1:], "seconds"])

    def _models_best_first(self):
        return sorted(MODELS, key=lambda name: not self.trial.best_plain().startswith(name))

    def _gains_figure(self) -> Picture:
        found = self.gains.xs("average_precision", level="metric")[["value", "low", "high"]]
        found = found.assign(low=found[["value", "low"]].min(axis=1))
        found = found.assign(high=found[["value", "high"]].max(axis=1))
        frames = {name: found.loc[name] for name in MODELS}
        listed = "; ".join(
            f"{name}, {way}: {_trial.signed(row)}" for (name, way), row in found.iterrows()
        )
        return picture(
            lambda ax: _legend_above(
                plots.plot_intervals(
                    frames, ax=ax, reference=0, xlabel="Change of average precision against none"
                )
            ),
            f"Change of average precision by way of balancing. {listed}.",
            "Right of the line: ranks better than the same model on the rows as they are.",
        )

    def calibration(self) -> Section:
        """Whether probabilities come true: as they are, after balancing, after correction."""
        title = "Do the probabilities come true?"
        if self.too_few:
            return Section(title, [Words(f"Not judged. {self.too_few.sentence}")])
        name = self.trial.best_plain().partition(": ")[0]
        plain, under = f"{name}: {PLAIN}", f"{name}: {UNDER}"
        curves = {
            PLAIN: self.trial.first(plain),
            UNDER: self.trial.first(under),
            f"{UNDER}{CORRECTED}": self.trial.corrected(under),
        }
        found = self.trial.summary()
        ratio = found.loc[(plain, "ratio")]
        text = (
            f"On the rows as they are, predictions of the {name} are on average {_times(ratio)} "
            f"the observed rate; after {UNDER} {_times(found.loc[(under, 'ratio')])}."
        )
        told = [self._drift(ratio), *self._worse_than_the_rate(name, found)]
        return Section(title, [Words(text), self._reliability(curves, name), *told])

    @staticmethod
    def _worse_than_the_rate(name, found):
        entropy = found.loc[(f"{name}: {PLAIN}", "normalised_entropy")]
        if entropy["low"] <= 1:
            return []
        return [
            Words(
                f"The normalised entropy of the {name} is above 1: as probabilities, its answers "
                "are worse than the rate alone, though they rank. Recalibrate them on rows set "
                "aside, or give the same rate to all, before a threshold from costs is used."
            )
        ]

    def _reliability(self, curves, name) -> Picture:
        y = self.data.y_test
        frames = {
            way: evaluate.reliability_curve(y, p, n_bins=RELIABILITY_BINS)
            for way, p in curves.items()
        }
        log = min(y.mean(), 1 - y.mean()) < 0.1
        return picture(
            lambda ax: plots.plot_reliability(frames, ax=ax, log=log),
            "Observed rate against mean predicted probability in "
            f"{RELIABILITY_BINS} groups of test rows, for three trainings of the {name}.",
            "On the dotted line predictions come true; right of it they are too high.",
        )

    def _drift(self, ratio):
        if ratio["low"] <= 1 <= ratio["high"]:
            return Words(
                "The interval of the unbalanced model contains 1: no error of the mean can be seen."
            )
        return Words(
            "The interval of the unbalanced model excludes 1: the rate moved between training and "
            "test, or the model fits too closely. Recalibrate on recent rows, and watch the ratio."
        )

    def decision(self) -> Section:
        """The threshold from costs, and what each rule would cost on the test rows."""
        title = "From probability to decision"
        fp, fn = self.used_costs
        given = (
            "as given"
            if self.costs
            else "assumed; give yours: --cost-fp, --cost-fn or COST_FP=, COST_FN="
        )
        text = (
            f"With costs of {readable(fp)} for a false positive and {readable(fn)} for a false "
            f"negative ({given}), acting pays from a probability of {self.threshold:.3g} on: "
            "C_FP ÷ (C_FP + C_FN), on probabilities at the natural rate. 0.5 is right only where "
            "both cost the same."
        )
        blocks = [Words(text)]
        if not self.too_few:
            blocks.append(self._rules())
        return Section(title, blocks)

    def _rules(self):
        y, cut = self.data.y_test, self.threshold
        name = self.trial.best_plain().partition(": ")[0]
        plain = self.trial.first(f"{name}: {PLAIN}")
        rules = [("never act", np.zeros(len(y), bool)), ("always act", np.ones(len(y), bool))]
        rules += [(f"{PLAIN}, from 0.5", plain >= 0.5), (f"{PLAIN}, from costs", plain >= cut)]
        for way in (WEIGHTS, UNDER):
            method = f"{name}: {way}"
            rules.append((f"{way}, from 0.5", self.trial.first(method) >= 0.5))
            corrected = self.trial.corrected(method) >= cut
            rules.append((f"{way}{CORRECTED}, from costs", corrected))
        found = _trial.costs_of(
            [_trial.Decision(*rule) for rule in rules],
            y,
            self.data.units,
            self.used_costs,
            n_replicates=self.settings.n_replicates,
        )
        frame = pd.DataFrame(
            {
                "rule": found.index,
                "acts on": found["share_acted"].map(percent),
                "cost per 1,000 rows": [_cost_text(row) for _, row in found.iterrows()],
            }
        )
        return Grid(frame, f"Rules with the {name}", list(frame.columns[1:]))

    def settings_to_use(self) -> Section:
        """Recommended settings, and code that reproduces them."""
        rows = [(what, value) for what, value in self._recommended() if value]
        frame = pd.DataFrame(rows, columns=["setting", "recommended"])
        return Section(
            "Recommended settings", [Grid(frame, "Recommended settings"), Code(self.code())]
        )

    def _recommended(self):
        name, way = (self.verdict.method or f"{MODELS[0]}: {PLAIN}").split(": ")
        shift = 0.0 if way == PLAIN else self.trial.shifts[f"{name}: {way}"]
        aside = ", ".join(map(shown, [*(s.name for s in self.suspects), *self.fleeting]))
        yield "model", f"{name}{', the simplest, until there are more rows' * bool(self.too_few)}"
        yield "balancing", "none" if way == PLAIN else way
        yield "correction", "none needed" if not shift else f"add {shift:.3f} to the log-odds"
        yield "threshold", f"{self.threshold:.3g} on the (corrected) probability"
        yield "leave out", aside
        yield "rows of the final training", self._final_rows()
        yield "test rows", f"at the natural rate: {self.split.how}"
        yield (
            "report",
            "average precision, normalised entropy and predicted ÷ observed, all with "
            f"intervals that draw {self._drawn()}",
        )

    def _final_rows(self):
        """What a sample cannot try: all positives of a file of which it holds a part."""
        if not self.log.sampled or self.imbalance.ratio < _trial.THIN_FROM:
            return ""
        return (
            f"every positive of the file ({self.log.positives:,}; the sample has "
            f"{self.imbalance.positives:,}) and as many negatives as fit, then add ln(share of "
            "negatives kept) to the log-odds; not tried here, as the sample is at the natural rate"
        )

    def code(self) -> str:
        """Python that opens the log, trains the recommended model, and decides."""
        if not self._usable():
            return "# No column is left to learn from."
        name, way = (self.verdict.method or f"{MODELS[0]}: {PLAIN}").split(": ")
        options = "".join(f", {k}={v!r}" for k, v in self.log.options.items())
        costs = f", costs={tuple(float(c) for c in self.costs)!r}" if self.costs else ""
        weight = ', class_weight="balanced"' if way == WEIGHTS else ""
        lines = [
            f"from recbal_utils import {'' if way == PLAIN else 'calibrate, '}logfile, takehome",
            "",
            f"log = logfile.open_log({self.log.name!r}, {self.log.label!r}{options})",
            f"study = takehome.Study(log{costs})",
            "rows = study.data  # split, leaks left out, columns as numbers",
            f"model = takehome.model({name!r}{weight})",
            *self._fit_lines(way),
            "p = model.predict_proba(rows.X_test)[:, 1]",
        ]
        shift = 0.0 if way == PLAIN else self.trial.shifts[f"{name}: {way}"]
        if shift:
            lines.append(f"p = calibrate.shift_log_odds(p, {shift:.6f})  # to the natural rate")
        lines += [f"act = p >= {self.threshold:.6g}", "", *_score_lines(shift)]
        return "\n".join(lines)

    def _fit_lines(self, way):
        if _trial.sampler(way) is None:
            return ["model.fit(rows.X_train, rows.y_train)"]
        return [
            f"sampler = takehome.sampler({way!r})",
            "model.fit(*sampler.fit_resample(rows.X_train, rows.y_train))",
        ]

    def sections(self) -> list[Section]:
        """All sections, in the order of the report."""
        return [
            self.short(),
            self.problems(),
            self.columns(),
            self.balance(),
            self.newcomers(),
            self.judged(),
            self.comparison(),
            self.calibration(),
            self.decision(),
            self.settings_to_use(),
        ]

    def html(self) -> str:
        """Return the whole report as one self-contained page."""
        about = (
            "How imbalanced the log is, whether balancing helps on it, and what to use. Figures "
            "are over many rows; no single row or id is shown."
        )
        return page(f"Balancing report: {self.log.name}", about, self.sections())

    def write(self, path) -> Path:
        """Write the report; the file is either whole or as it was before.

        Raises
        ------
        RecbalError
            If the file cannot be written.
        """
        path, text = Path(path), self.html()
        try:
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            why = (error.strerror or "the disk refuses").lower()
            raise RecbalError(f"The report cannot be written to {path.name}: {why}.") from None
        return path


_LABEL = "the label, 0 or 1"  # a name of our own, for tables in which only named columns stand

model, sampler = _trial.model, _trial.sampler  # public: the report's code uses them


def _listed(problems) -> list:
    """Rows of the table of problems; what many columns have in common is one row."""
    rows = {}
    for p in problems:
        rows.setdefault((p.what, p.done) if p.done.startswith("left out") else p, []).append(p)
    found = []
    for alike in rows.values():
        first, names = alike[0], [p.where for p in alike]
        more = f", … ({len(names)} columns)" if len(names) > MAX_NAMES else ""
        where = ", ".join(names[:MAX_NAMES]) + more
        count = "" if first.rows is None or len(names) > 1 else f"{first.rows:,}"
        found.append((first.what, where, count, first.done))
    return found


def _shuffled(table, seed=0):
    """The table with the labels of its rows exchanged: what concentration comes from chance."""
    y = np.random.default_rng(seed).permutation(table[_LABEL].to_numpy())
    return table.assign(**{_LABEL: y})


def _score_lines(shift):
    """Code for new rows: comments, as their file is not known."""
    yield "# New rows, with the same columns; a label is not needed:"
    yield '# new = logfile.open_rows("new_rows.csv", like=log)'
    yield "# p_new = model.predict_proba(study.encoder.transform(new))[:, 1]"
    if shift:
        yield f"# p_new = calibrate.shift_log_odds(p_new, {shift:.6f})"


def _rate(value) -> str:
    return percent(value) if np.isfinite(value) else "no rows"


def _legend_above(ax):
    """Put the legend where it hides no interval."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)


def _fine(row) -> str:
    """A value and its interval to three digits: where positives are rare, precision is small."""
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _times(row) -> str:
    return f"{_fine(row)} times"


def _cost_text(row) -> str:
    return f"{row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"


__all__ = ["Settings", "Study", "model", "sampler"]
