"""Studies: run where missing, resumed after an interrupt, never half-written."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from recbal_utils import studies
from recbal_utils.errors import RecbalError

SCRIPT = '''"""A study."""
import os
from pathlib import Path

import pandas as pd

from recbal_utils import studies
from recbal_utils.errors import RecbalError


def run(seeds=range(5), checkpoint=None):
    rows = []
    for seed in seeds:
        part = Path(checkpoint) / f"{seed}.txt"
        if not part.exists():
            if seed == 1 and os.environ.get("FAULT"):
                raise RecbalError("no rows") if os.environ["FAULT"] == "bad" else KeyboardInterrupt
            print(f"seed {seed}")
            part.write_text(str(seed * seed))
        rows.append({"seed": seed, "value": int(part.read_text())})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    studies.main(run)
'''


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "_config.yml").touch()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "99_squares.py").write_text(SCRIPT)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("RECBAL_STUDIES", raising=False)
    return tmp_path


def run(project, *options, **environment):
    command = [sys.executable, "studies/99_squares.py", "out/squares.parquet", *options]
    (project / "out").mkdir(exist_ok=True)
    return subprocess.run(
        command,
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_read_runs_a_study_once(project, capfd):
    first = studies.read("99_squares")
    assert first["value"].tolist() == [0, 1, 4, 9, 16]
    assert capfd.readouterr().out.splitlines() == [f"seed {seed}" for seed in range(5)]
    assert files(project / "_build" / "studies") == ["99_squares.parquet"]
    pd.testing.assert_frame_equal(studies.read("99_squares"), first)
    assert capfd.readouterr().out == ""
    studies.read("99_squares", recompute=True)
    assert "seed 4" in capfd.readouterr().out


def test_the_folder_can_be_moved(project, tmp_path, monkeypatch):
    monkeypatch.setenv("RECBAL_STUDIES", str(tmp_path / "elsewhere"))
    studies.read("99_squares")
    assert files(tmp_path / "elsewhere") == ["99_squares.parquet"]


def test_an_interrupted_study_goes_on_where_it_stopped(project):
    stopped = run(project, FAULT="stop")
    assert stopped.returncode == 130
    assert stopped.stderr.strip() == "squares: stopped; run it again to go on."
    assert files(project / "out") == [".squares.parts"]
    again = run(project, FAULT="")
    assert again.returncode == 0
    assert again.stdout.splitlines() == [f"seed {seed}" for seed in range(1, 5)]
    assert files(project / "out") == ["squares.parquet"]


def test_results_of_other_code_are_not_mixed_in(project):
    run(project, FAULT="stop")
    script = project / "studies" / "99_squares.py"
    script.write_text(SCRIPT.replace("seed * seed", "seed"))
    assert run(project).stdout.splitlines()[0] == "seed 0"


def test_seeds_from_the_command_line(project):
    assert run(project, "--seeds", "7", "8").returncode == 0
    assert pd.read_parquet(project / "out" / "squares.parquet")["seed"].tolist() == [7, 8]


def test_faults_are_one_line(project, monkeypatch):
    bad = run(project, FAULT="bad")
    assert bad.returncode == 1
    assert bad.stderr.strip() == "squares: no rows"
    assert "squares.parquet" not in files(project / "out")
    monkeypatch.setenv("FAULT", "bad")
    with pytest.raises(RecbalError, match="99_squares failed: 99_squares: no rows"):
        studies.read("99_squares")
    with pytest.raises(RecbalError, match="no study '00_none'"):
        studies.read("00_none")


def test_a_notebook_uses_the_functions_of_the_study(project):
    found = studies.script("99_squares").run(seeds=[3], checkpoint=project)
    assert found["value"].tolist() == [9]
    with pytest.raises(RecbalError, match="no study '00_none'"):
        studies.script("00_none")


def test_a_step_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"x": [1, 2]})

    frames = [studies.kept(tmp_path, "one, two", make) for _ in range(2)]
    assert len(made) == 1
    pd.testing.assert_frame_equal(*frames)

    def broken():
        raise RecbalError("no rows")

    with pytest.raises(RecbalError):
        studies.kept(tmp_path, "broken", broken)
    assert len(list(tmp_path.iterdir())) == 1, "a failed step leaves nothing"
    assert len(studies.kept(None, "one", make)) == 2
    assert len(made) == 2
