"""The folder of the project, and records of tests that the project carries."""

import json
from collections.abc import Sequence
from pathlib import Path

from recbal_utils.errors import RecbalError


def project_folder() -> Path:
    """The nearest folder above the present one with a `_config.yml`, else that of this package."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "_config.yml").is_file():
            return folder
    return Path(__file__).resolve().parents[1]


def read(
    fresh: Path, carried: Path, needed: Sequence[str], test: str, project: Path | None = None
) -> dict:
    """Read what a test last left on this machine, else the record that the project carries.

    Parameters
    ----------
    fresh, carried : path
        Places of the two records, from the folder of the project.
    needed : sequence of str
        Names that a record must have; "date" and "machine" among them.
    test : str
        Name of the test; ``make <test>-test`` runs it.
    project : path, optional
        Folder of the project; by default that of `project_folder`.

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
    project = project_folder() if project is None else Path(project)
    path = project / fresh if (project / fresh).exists() else project / carried
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if missing := [name for name in needed if name not in found]:
            raise ValueError(f"it lacks {missing[0]}")
    except (OSError, ValueError, TypeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise RecbalError(
            f"The record {path.name} of the {test} test cannot be read ({said}): run 'make "
            f"{test}-test', or take {carried.as_posix()} from the project again."
        ) from None
    how = "measured on this machine" if path == project / fresh else "recorded"
    return {**found, "source": f"{how} on {found['date']}: {found['machine']}"}
