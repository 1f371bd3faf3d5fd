"""What the scale test runs on every engine, and the record that it leaves.

`make scale-test` thins the same weeks of the log on DuckDB and on Spark and writes a record to
``_build/spark/record.json``. The project carries the record of one such run; chapter 21 shows it,
labelled as recorded, where the test was not run.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis.expr.types as ir
import pandas as pd

from recbal_utils import _record, datasets, engines, partitioned, sampling

WEEKS = (37, 38, 39, 40)
KEYS = datasets.IMPRESSION_KEYS
FRESH = Path("_build") / "spark" / "record.json"
CARRIED = Path("studies") / "21_scale_out.json"
NEEDED = ("date", "machine", "versions", "log", "diagnoses", "samples", "overlaps", "cost")


def write_log(folder: Path, weeks: Sequence[int] = WEEKS) -> Path:
    """Write weeks of the promotion log as partitioned Parquet; returns `folder`.

    Raises
    ------
    RecbalError
        As `datasets.promotion_log` and `partitioned.write`.
    """
    return partitioned.write(datasets.promotion_log(weeks), folder, "week", weeks)


def thinned(log: ir.Table, keep_rate: float = 0.01, seed: int = 0) -> ir.Table:
    """Every conversion and a share of the other impressions, with weights; the same rows anywhere.

    Parameters
    ----------
    log : ibis Table
        With the columns of `datasets.promotion_log`.
    keep_rate, seed
        As in `sampling.sample_negatives`.
    """
    return sampling.sample_negatives(log, datasets.LABEL, list(KEYS), keep_rate, seed)


def by_week(sample: pd.DataFrame) -> pd.DataFrame:
    """Rows, sum of weights and fingerprint of each week of a sample, indexed by `week`."""
    found = {
        int(week): {
            "rows": len(rows),
            "weight": float(rows["weight"].sum()),
            "fingerprint": engines.fingerprint(rows, KEYS),
        }
        for week, rows in sample.groupby("week")
    }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("week")


def record(project: Path | None = None) -> dict:
    """Read the record of the last scale test: this machine's own, else the one carried.

    Parameters
    ----------
    project : path, optional
        Folder of the project; by default the nearest one above with a `_config.yml`.

    Returns
    -------
    dict
        What the test wrote, and `source`: "measured on this machine" or "recorded", with the date
        and the kind of machine.

    Raises
    ------
    RecbalError
        There is no record, or it is damaged.
    """
    return _record.read(FRESH, CARRIED, NEEDED, "scale", project)
