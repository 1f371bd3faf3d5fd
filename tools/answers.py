"""Write what `check` knows of a chapter's exercises, from a run of the chapter.

Run it when a solution has changed on purpose: `.venv/bin/python tools/answers.py 04_resampling`.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import execute
from common import BUILD, ROOT, notebook_environment, stop, write_atomically

sys.path.insert(0, str(ROOT))
from recbal_utils.checks import ANSWERS, make_key

TRAPS = Path(__file__).with_name("traps.json")


def keys(lines: list[dict], traps: dict) -> dict:
    """What `check` reads: exercise, name of the answer, key."""
    made: dict = {}
    for line in lines:
        exercise = line["exercise"]
        for name, right in line["answers"].items():
            known = traps.get(exercise, {}).get(name, [])
            key = make_key(right, f"{exercise}/{name}", within=line["within"], traps=known)
            made.setdefault(exercise, {})[name] = key
    return made


def main(chapter: str) -> None:
    """Run a chapter in which `check` records, and write the keys of its exercises."""
    with tempfile.TemporaryDirectory(prefix=f"answers-{chapter}-", dir=BUILD) as folder:
        work = Path(folder)
        os.environ.update(notebook_environment(work / "claims", work / "figures"))
        os.environ["RECBAL_CHECKS_RECORD"] = str(work / "answers.jsonl")
        try:
            execute.run(ROOT / "notebooks" / f"{chapter}.ipynb", work / f"{chapter}.ipynb")
        except execute.CellFailure as failure:
            stop(f"{chapter}: {failure}")
        text = (work / "answers.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    made = keys(lines, json.loads(TRAPS.read_text(encoding="utf-8")))
    content = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    write_atomically(ANSWERS / f"{chapter[:2]}.json", content)
    print(f"{chapter}: {len(made)} exercises")
    if "--show" in sys.argv:
        print(text)


if __name__ == "__main__":
    main(sys.argv[1])
