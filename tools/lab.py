"""Open JupyterLab on the notebooks, in the environment they are built in.

With `--student` it opens the student's edition, which has answer cells instead of solutions.
"""

import os
import sys

import student
from common import BUILD, ROOT, notebook_environment

if __name__ == "__main__":
    # What is tried out here must not replace what the book was built from.
    environment = notebook_environment(BUILD / "lab" / "claims", BUILD / "lab" / "figures")
    for key in ("RECBAL_CLAIMS_DIR", "RECBAL_FIGURES_DIR"):
        os.makedirs(environment[key], exist_ok=True)
    # The root is the project, so that links from the notebooks to the pages work.
    command = [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(ROOT)]
    words = [word for word in sys.argv[1:] if word != "--student"]
    folder = "notebooks"
    if len(words) < len(sys.argv) - 1:
        folder = "_build/student"
        student.main(ROOT / "notebooks", ROOT / folder)
    command += [f"--LabApp.default_url=/lab/tree/{folder}", *words]
    if os.geteuid() == 0:  # as in a container
        command.append("--allow-root")
    os.execve(sys.executable, command, environment)
