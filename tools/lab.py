"""Open JupyterLab on the notebooks, in the environment they are built in."""

import os
import sys

from common import BUILD, ROOT, notebook_environment

if __name__ == "__main__":
    # What is tried out here must not replace what the book was built from.
    environment = notebook_environment(BUILD / "lab" / "claims", BUILD / "lab" / "figures")
    for key in ("RECBAL_CLAIMS_DIR", "RECBAL_FIGURES_DIR"):
        os.makedirs(environment[key], exist_ok=True)
    # The root is the project, so that links from the notebooks to the pages work.
    command = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(ROOT)]
    command += ["--LabApp.default_url=/lab/tree/notebooks", *sys.argv[1:]]
    if os.geteuid() == 0:  # as in a container
        command.append("--allow-root")
    os.execve(sys.executable, command, environment)
