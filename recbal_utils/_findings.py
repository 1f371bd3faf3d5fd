"""What is computed about one log: once, and not before it is asked for."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd

from recbal_utils import _trial, calibrate, diagnose
from recbal_utils._encode import LEFT_OUT, TableEncoder, fleeting
from recbal_utils._leaks import suspects
from recbal_utils._split import LEAST_PER_SIDE, Split, split
from recbal_utils._trial import Settings
from recbal_utils.errors import RecbalError


class Findings:
    """The figures behind the sections of `takehome.Study`, which documents the parameters."""

    def __init__(self, log, *, costs=None, settings: Settings | None = None):
        self.log = log
        self.settings = settings or Settings()
        self.costs = costs
        if costs is not None:
            calibrate.threshold_from_costs(*costs)

    @cached_property
    def suspects(self) -> list:
        """Columns suspected to hold the answer; set aside from all models."""
        return suspects(self.log.frame, self.log.y, self.log.columns)

    @cached_property
    def split(self) -> Split:
        """Which rows are for the test."""
        return split(self.log, seed=self.settings.seed)

    @property
    def skipped(self) -> list:
        """Columns the models do not see: suspects, fleeting ones, the group kept on one side."""
        names = [*(s.name for s in self.suspects), *self.fleeting, self.split.by_group]
        return list(dict.fromkeys(name for name in names if name))

    @cached_property
    def fleeting(self) -> list:
        """Columns whose values in the test rows are new: what is learnt of them is of no use."""
        apart = {self.log.roles.get("time"), self.split.by_group}
        columns = {name: c for name, c in self.log.columns.items() if name not in apart}
        return fleeting(self.log.frame, columns, self.split.test)

    @cached_property
    def encoder(self) -> TableEncoder:
        """Turns columns into numbers; fitted when `data` is asked for."""
        time = self.log.roles.get("time")
        return TableEncoder(self.log.columns, skip=self.skipped, time=time, seed=self.settings.seed)

    @cached_property
    def data(self) -> _trial.Matrices:
        """Training and test rows as numbers."""
        test, y = self.split.test, self.log.y.astype(np.int64)
        X_train = self.encoder.fit_transform(self.log.frame[~test], y[~test])
        X_test = self.encoder.transform(self.log.frame[test])
        units = self.split.units[test]
        return _trial.Matrices(X_train, y[~test], X_test, y[test], units, self._choosing(~test))

    def _choosing(self, rows):
        """Of the training rows, those to choose a model by: split off as the test was."""
        log = self.log
        part = replace(log, frame=log.frame[rows], y=log.y[rows], copies=log.copies[rows])
        try:
            return split(part, seed=self.settings.seed).test
        except RecbalError:  # too few moments or groups to split again
            return np.zeros(int(rows.sum()), dtype=bool)

    @cached_property
    def imbalance(self) -> diagnose.Imbalance:
        """Counts of the rows that were read."""
        table = pd.DataFrame({"y": self.log.y, "unit": self.split.units})
        return diagnose.imbalance(table, "y", group="unit" if self.split.unit != "row" else None)

    @property
    def rare(self) -> str:
        """Name of the rarer class."""
        return "positives" if self.imbalance.prevalence <= 0.5 else "negatives"

    @cached_property
    def too_few(self) -> _trial.Verdict | None:
        """The verdict "too few to tell", or None."""
        if not self._usable():
            return _trial.nothing_left()
        test, y = self.split.test, self.log.y
        of_class = y == (self.rare == "positives")
        sides = int(of_class[~test].sum()), int(of_class[test].sum())
        if min(sides) < LEAST_PER_SIDE:
            return _trial.too_few(*sides, self.rare, LEAST_PER_SIDE)
        if min((~of_class)[~test].sum(), (~of_class)[test].sum()) < LEAST_PER_SIDE:
            return _trial.too_few(*sides, "rows", LEAST_PER_SIDE)
        return None

    def _usable(self):
        """Names of the columns that the models can learn from."""
        skipped, time = set(self.skipped), self.log.roles.get("time")
        return [
            name
            for name, c in self.log.columns.items()
            if name not in skipped and c.kind not in LEFT_OUT and (name != time or c.kind == "date")
        ]

    @cached_property
    def trial(self) -> _trial.Trial:
        """All trainings. Takes most of the time."""
        return _trial.Trial(self.data, self.settings).run()

    @cached_property
    def gains(self) -> pd.DataFrame:
        """See `_trial.gains`."""
        return _trial.gains(self.trial)

    @cached_property
    def verdict(self) -> _trial.Verdict:
        """Whether balancing is worth it."""
        return self.too_few or _trial.verdict(self.trial, self.gains)

    @property
    def used_costs(self) -> tuple:
        """The costs given, or 1 and the imbalance ratio."""
        return self.costs or (1.0, self.imbalance.ratio)

    @property
    def threshold(self) -> float:
        """Probability, at the natural rate, from which acting pays."""
        return calibrate.threshold_from_costs(*self.used_costs)
