"""Where a report may be written to, checked before any work is done."""

import os
from pathlib import Path

from recbal_utils.errors import RecbalError


def checked_output(output, log) -> Path:
    """Return the path of the report; raise before any work if it cannot be written.

    Raises
    ------
    RecbalError
        If it is a folder, the log itself, or in a folder that is not there or not writable.
    """
    path = Path(output)
    try:
        if "\0" in str(path):
            raise ValueError
        if path.is_dir():
            raise RecbalError(f"{path.name or output} is a folder: give --output a file name.")
        if path.exists() and not path.is_file():
            raise RecbalError(f"--output is no file that can be replaced: {path.name}.")
        if path.exists() and Path(log).exists() and path.samefile(log):
            raise RecbalError("--output is the log itself, which is never overwritten.")
        if not path.parent.is_dir():
            raise RecbalError(f"The folder of --output, {path.parent.name}, does not exist.")
        if not os.access(path.parent, os.W_OK):
            raise RecbalError(f"The folder of --output, {path.parent.name}, is not writable.")
    except (OSError, ValueError) as error:
        if isinstance(error, RecbalError):
            raise
        raise RecbalError("--output is no path that can be written to.") from None
    return path
