"""Progress of a build's steps: a line when one starts and ends, memory, the time left."""

import json
import os
import threading
import time

import psutil
from common import FAILED, STARTED, TIMINGS, write_atomically

HEARTBEAT_SECONDS = 30


class Watch(threading.Thread):
    """Measures the memory of the kernel and its children, and shows that work goes on."""

    def __init__(self, name: str):
        super().__init__(daemon=True)
        self.name = name
        self.start_time = time.monotonic()
        self.peak_bytes = 0
        self.done = threading.Event()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start_time

    def run(self) -> None:
        next_word = HEARTBEAT_SECONDS
        while not self.done.wait(0.25):
            self.peak_bytes = max(self.peak_bytes, tree_bytes())
            if self.seconds > next_word:
                say(f"      {self.name}: {self.seconds:.0f} s, still running")
                next_word += HEARTBEAT_SECONDS


def say(text: str) -> None:
    print(text, flush=True)


def tree_bytes() -> int:
    """Resident memory of all processes below this one."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def time_left(seconds: float) -> str:
    """A rough word on what is still to come, from the notebooks finished so far."""
    due = int(os.environ.get("RECBAL_DUE", 1))
    spent = [json.loads(p.read_text())["seconds"] for p in STARTED.glob("*.done")] + [seconds]
    left = due - len(spent)
    if left <= 0:
        return ""
    jobs = min(int(os.environ.get("RECBAL_JOBS", 1)), left)
    return f"; about {left * sum(spent) / len(spent) / jobs:.0f} s left"


class Step:
    """One notebook or study of this build: says that it started, goes on, and how it ended.

    A context manager; within it, call `done` or `failed` once.
    """

    def __init__(self, name: str):
        self.name = name
        STARTED.mkdir(parents=True, exist_ok=True)
        (STARTED / name).touch()
        number = len([path for path in STARTED.iterdir() if path.suffix != ".done"])
        self.place = f"[{number}/{os.environ.get('RECBAL_DUE', 1)}] {name}"
        self.watch = Watch(name)

    def __enter__(self):
        say(f"{self.place}: started")
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.watch.done.set()

    def failed(self, reason) -> None:
        """Leave the reason, one line, in `_build/failed`."""
        self.watch.done.set()
        write_atomically(FAILED / f"{self.name}.txt", f"{self.name}: {reason}\n")
        say(f"{self.place}: failed after {self.watch.seconds:.0f} s")

    def done(self) -> None:
        """Keep what the step took, and say how long the rest may take."""
        self.watch.done.set()
        spent, peak = self.watch.seconds, round(self.watch.peak_bytes / 2**20)
        record = {"seconds": round(spent, 1), "peak_mb": peak}
        write_atomically(
            TIMINGS / f"{self.name}.json", json.dumps({"chapter": self.name, **record})
        )
        left = time_left(spent)
        write_atomically(STARTED / f"{self.name}.done", json.dumps(record))
        say(f"{self.place}: done in {spent:.0f} s, {peak} MB at most{left}")
