"""The other end of `serve`: start a server from Python, ask it, read its log, stop it.

For notebooks, tests and benchmarks. A shop's front end needs only the form of a request, which
`request` shows; it can be written in any language.
"""

import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbal_utils.errors import RecbalError

if TYPE_CHECKING:  # it is started by name; from this line the build sees that it is needed
    from recbal_utils import serve  # noqa: F401

START_SECONDS = 120.0
STOP_SECONDS = 30.0
HEADERS = {"content-type": "application/json"}


def request(visit, candidates, X, names):
    """Return the body of a request to /score: a dict of plain lists.

    Parameters
    ----------
    visit : str or int
    candidates : sequence of str or int
        Ids, each once.
    X : array-like of shape (len(candidates), len(names))
    names : sequence of str
        Of the features.
    """
    columns = np.asarray(X, dtype=np.float64).T.tolist()
    return {
        "visit": str(visit),
        "candidates": [str(candidate) for candidate in candidates],
        "features": dict(zip(names, columns, strict=True)),
    }


class Service:
    """A server in a process of its own; a context manager.

    Parameters
    ----------
    path : str or Path
        A file that `export.save_model` wrote.
    *options : str
        Options of ``python -m recbal_utils.serve``, such as "--max-candidates", "500". The port
        is any free one unless "--port" is given.

    Attributes
    ----------
    port : int
    process : subprocess.Popen

    Raises
    ------
    RecbalError
        If the server does not start; with the server's own words.
    """

    def __init__(self, path, *options):
        self._folder = tempfile.TemporaryDirectory(prefix="recbal-")
        self._log = Path(self._folder.name) / "log"
        command = [sys.executable, "-m", "recbal_utils.serve", str(path), "--port", "0"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *options], stderr=log)
        weakref.finalize(self, self.process.terminate)  # also where a notebook breaks off
        self.port = self._listening()["port"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def ask(self, method, route, body=None, headers=HEADERS):
        """Send one request; return the status and the body, parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, route, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.headers.get("content-type", "")
            return response.status, json.loads(text) if "json" in kind else text
        finally:
            connection.close()

    def score(self, visit, candidates, X, names):
        """Return the answer of /score.

        Raises
        ------
        RecbalError
            If the server refuses the request; with its reason.
        """
        body = json.dumps(request(visit, candidates, X, names))
        status, answer = self.ask("POST", "/score", body)
        if status != 200:
            raise RecbalError(f"The server answered {status}: {' '.join(answer['errors'])}")
        return answer

    def connect(self):
        """Return a socket to the server, for what no honest client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def lines(self):
        """Return the lines of the log so far: a list of dicts."""
        whole = self._log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def stop(self):
        """Ask the server to stop, wait until it has, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RecbalError(f"The server did not stop within {STOP_SECONDS:g} s.") from None

    def _listening(self):
        end = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            text = self._log.read_text().rpartition("\n")[0]
            for line in text.splitlines():
                if '"listening"' in line:
                    return json.loads(line)
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        words = self._log.read_text().strip() or f"no sign of life in {START_SECONDS:g} s"
        raise RecbalError(f"The server did not start: {words}")
