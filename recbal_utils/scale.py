"""What the scale test runs on every engine, and the record that it leaves.

`make scale-test` thins the same weeks of the log on DuckDB and on Spark and writes a record to
``_build/spark/record.json``. The project carries the record of one such run; chapter 21 shows it,
labelled as recorded, where the test was not run.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import ibis.expr.types as ir
import pandas as pd

from recbal_utils import datasets, engines, partitioned, sampling
from recbal_utils.errors import RecbalError

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
    project = _project() if project is None else Path(project)
    fresh, carried = project / FRESH, project / CARRIED
    path = fresh if fresh.exists() else carried
    found = _read(path)
    how = "measured on this machine" if path == fresh else "recorded"
    return {**found, "source": f"{how} on {found['date']}: {found['machine']}"}


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if missing := [name for name in NEEDED if name not in found]:
            raise ValueError(f"it lacks {missing[0]}")
    except (OSError, ValueError, TypeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise RecbalError(
            f"The record {path.name} of the scale test cannot be read ({said}): run 'make "
            "scale-test', or take studies/21_scale_out.json from the project again."
        ) from None
    return found


def _project() -> Path:
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "_config.yml").is_file():
            return folder
    return Path(os.path.realpath(__file__)).parents[1]
