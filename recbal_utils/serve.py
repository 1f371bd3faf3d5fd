"""A saved model behind HTTP: `python -m recbal_utils.serve model.npz`.

POST /score takes the candidates of a visit and answers calibrated probabilities and a ranking;
GET /health and GET /metrics are for the machines that watch. Neither log lines nor metrics hold
what a request contained.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from pydantic_core import from_json
from scipy.special import expit
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recbal_utils import _serving
from recbal_utils.errors import RecbalError
from recbal_utils.export import load_model

SCORE_EDGES = np.arange(-14, 6.01, 0.25)  # log-odds; probabilities from 1e-6 to .998
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MAX_SHIFT = 3.0  # nats; a correction beyond a factor of 20 in the odds is a fault, not a drift
MAX_ERRORS = 5  # told of one request
ROUTES = ("/score", "/health", "/metrics")

Identifier = Annotated[str, pydantic.Field(min_length=1, max_length=100)]
Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes
    ----------
    candidates : int
        Of one visit.
    body_bytes : int
        More gets a 413.
    body_seconds : float
        In which a request has to arrive; later it gets a 408.
    waiting : int
        Requests that may be arriving at one time; one more gets a 429.
    """

    candidates: int = 1000
    body_bytes: int = 1_000_000
    body_seconds: float = 5.0
    waiting: int = 64


class ScoreRequest(pydantic.BaseModel):
    """A visit and its candidates: a list of values for each feature, in the order of the ids."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    visit: Identifier
    candidates: Annotated[list[Identifier], pydantic.FailFast()]
    features: dict[str, Annotated[list[Number], pydantic.FailFast()]]


class Refusal(Exception):
    """An answer other than 200: status, sentences for the client, and whether to hang up."""

    def __init__(self, status, *errors, close=False):
        super().__init__(status)
        self.status, self.errors, self.close = status, errors, close


# --- the application ------------------------------------------------------------------------


def create_app(model, *, limits=None, correction_file=None):
    """Return the application that serves a model.

    Parameters
    ----------
    model : export.ScoringModel, or an object with its attributes `feature_names`,
        `model_version`, `features_version`, `reference` and its method `log_odds`
    limits : Limits, optional
    correction_file : str or Path, optional
        Where `monitor.write_correction` leaves a shift of the log-odds. It is looked at once a
        second at most; while it is missing, damaged or beyond 3 nats, the last good one holds.

    Returns
    -------
    fastapi.FastAPI
    """
    limits = limits or Limits()
    shift, metrics = Correction(correction_file), Metrics(model)
    app = FastAPI(title="recbal", docs_url=None, redoc_url=None)
    schema = {"application/json": {"schema": ScoreRequest.model_json_schema()}}

    @app.post("/score", openapi_extra={"requestBody": {"required": True, "content": schema}})
    async def score(request: Request):
        with metrics.waiting(limits.waiting):
            body = await _read(request, limits)
        asked = _parsed(body, model.feature_names)
        X = _matrix(asked, model.feature_names, limits.candidates)
        answer = _answer(asked, X, model, shift.value(), metrics)
        request.state.candidates = len(X)
        return _json(answer)

    @app.get("/health")
    async def health():
        return _json({"status": "ok", **_versions(model), "correction": shift.value()})

    @app.get("/metrics")
    async def show_metrics():
        metrics.shift.set(shift.value())
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    app.exception_handler(Refusal)(_refusal_handler)
    app.exception_handler(HTTPException)(_http_handler)
    app.add_middleware(Watched, model=model, metrics=metrics)
    return app


def _answer(asked, X, model, shift, metrics):
    try:
        log_odds = model.log_odds(X)
    except RecbalError as error:
        raise Refusal(422, str(error)) from None
    p = expit(log_odds + shift)
    order = np.argsort(-p, kind="stable")
    metrics.count(X, log_odds)
    return {
        "visit": asked.visit,
        **_versions(model),
        "correction": shift,
        "probabilities": p.tolist(),
        "ranking": [asked.candidates[i] for i in order],
    }


def _versions(model):
    return {"model_version": model.model_version, "features_version": model.features_version}


def _json(content, status=200, headers=None):
    return Response(json.dumps(content), status, headers, media_type="application/json")


# --- what comes in --------------------------------------------------------------------------


async def _read(request, limits):
    """Return the body, or refuse it as soon as it is too long, too late or of another kind.

    What a refused client still sends is read and thrown away by Uvicorn, so that the client is
    not cut off before it has read the answer.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" or "content-encoding" in request.headers:
        raise Refusal(415, "Send plain application/json, not compressed.")
    if int(request.headers.get("content-length", 0)) > limits.body_bytes:
        raise _too_long(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise _too_long(limits)
    except TimeoutError:
        why = f"The request did not arrive within {limits.body_seconds:g} s."
        raise Refusal(408, why, close=True) from None
    except ClientDisconnect:
        raise Refusal(400, "The client hung up.", close=True) from None
    return bytes(body)


def _too_long(limits):
    return Refusal(413, f"The body is longer than {limits.body_bytes} bytes.")


def _parsed(body, names):
    """Return the request; checks are ordered so that a hostile one costs little time."""
    try:
        plain = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise Refusal(422, "body: not valid JSON.") from None
    features = plain.get("features") if isinstance(plain, dict) else None
    if not isinstance(features, dict) or len(plain) > len(ScoreRequest.model_fields):
        wanted = ", ".join(ScoreRequest.model_fields)
        raise Refusal(422, f"body: must be an object of {wanted}; features an object, too.")
    _check_names(features, names)
    try:
        return ScoreRequest.model_validate(plain)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise Refusal(422, *[_told(one) for one in found[:MAX_ERRORS]]) from None


def _check_names(features, names):
    missing = [f"{name} is missing" for name in names if name not in features]
    unknown = [f"{name[:40]} is unknown" for name in features if name not in names]
    if missing or unknown:
        wrong = ", ".join((missing + unknown)[:MAX_ERRORS])
        raise Refusal(422, f"features: {wrong}.")


def _told(error):
    """Where and what, without the value itself."""
    return ".".join(str(part)[:40] for part in error["loc"]) + ": " + error["msg"]


def _matrix(asked, names, most):
    n = len(asked.candidates)
    if not 0 < n <= most:
        raise Refusal(422, f"candidates: {n} were sent, and 1 to {most} are allowed.")
    if len(set(asked.candidates)) < n:
        raise Refusal(422, "candidates: an id stands twice, so that a ranking would be unclear.")
    for name in names:
        if len(asked.features[name]) != n:
            raise Refusal(
                422, f"features.{name}: {len(asked.features[name])} values for {n} candidates."
            )
    return np.array([asked.features[name] for name in names], dtype=np.float64).T


# --- what is watched ------------------------------------------------------------------------


class Watched:
    """Middleware: every request gets an id, a log line, a time, and an answer even if code fails.

    Plain ASGI: Starlette's own base class for middleware starts a task and two streams a request.
    """

    def __init__(self, app, model, metrics):
        self.app, self.model, self.metrics = app, model, metrics

    async def __call__(self, scope, receive, send):
        """Pass a request on, and tell how it went."""
        start, status = time.perf_counter(), None
        state = scope.setdefault("state", {})
        state["request_id"] = uuid.uuid4().hex

        async def noted(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", state["request_id"].encode()))
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            fields = {"request_id": state["request_id"]}
            _serving.log.exception("failed", extra={"fields": fields})
            if status is None:
                failed = Refusal(500, "The server failed.", close=True)
                await _refused(Request(scope), failed)(scope, receive, noted)
        finally:
            self._report(scope["path"], status, state, time.perf_counter() - start)

    def _report(self, path, status, state, seconds):
        route = path if path in ROUTES else "other"
        self.metrics.requests.labels(route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        fields = {
            "request_id": state["request_id"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 3),
            "candidates": state.get("candidates"),
            "model_version": self.model.model_version,
        }
        _serving.log.info("request", extra={"fields": fields})


def _refused(request, refusal):
    headers = {"connection": "close"} if refusal.close else {}
    if refusal.status == 429:
        headers["retry-after"] = "1"
    content = {"errors": list(refusal.errors), "request_id": request.state.request_id}
    return _json(content, refusal.status, headers)


async def _refusal_handler(request, refusal):
    return _refused(request, refusal)


async def _http_handler(request, error):
    return _refused(request, Refusal(error.status_code, str(error.detail)))


class Correction:
    """The shift that a monitor left in a file."""

    def __init__(self, path, every=1.0):
        self.path = Path(path) if path else None
        self.every, self._shift, self._looked, self._seen = every, 0.0, -np.inf, None

    def value(self):
        """Return the shift in force, in nats."""
        now = time.monotonic()
        if self.path and now - self._looked >= self.every:
            self._looked = now
            self._look()
        return self._shift

    def _look(self):
        try:
            stamp = os.stat(self.path)
            if self._seen == (stamp.st_mtime_ns, stamp.st_ino):
                return
            self._seen = (stamp.st_mtime_ns, stamp.st_ino)
            shift = json.loads(self.path.read_text(encoding="utf-8"))["log_odds_shift"]
            if isinstance(shift, bool) or not abs(shift) <= MAX_SHIFT:
                raise ValueError
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            _serving.log.warning("correction refused", extra={"fields": {"kept": self._shift}})
            return
        self._shift = float(shift)
        _serving.log.info("correction", extra={"fields": {"log_odds_shift": self._shift}})


class Metrics:
    """Counters in Prometheus's form: requests, seconds, scores, and features in their bins."""

    def __init__(self, model):
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter("recbal_requests", "Requests.", ["route", "status"], **own)
        self.seconds = Histogram(
            "recbal_request_seconds", "Time to an answer.", ["route"], buckets=SECONDS, **own
        )
        self.n_arriving = 0
        arriving = Gauge("recbal_arriving", "Requests whose body is arriving.", **own)
        arriving.set_function(lambda: self.n_arriving)
        self.shift = Gauge("recbal_correction_nats", "Correction in force.", **own)
        versions = Gauge("recbal_model", "Versions.", list(_versions(model)), **own)
        versions.labels(**_versions(model)).set(1)
        self.reference = model.reference
        self.scores = np.zeros(len(SCORE_EDGES) + 1, dtype=np.int64)
        self.bins = [np.zeros_like(count) for count in getattr(self.reference, "counts", ())]
        self.registry.register(self)

    @contextlib.contextmanager
    def waiting(self, most):
        """Count a request in while its body arrives; refuse it where too many do."""
        if self.n_arriving >= most:
            raise Refusal(429, "Too many requests at one time.")
        self.n_arriving += 1
        try:
            yield
        finally:
            self.n_arriving -= 1

    def count(self, X, log_odds):
        """Add the scored rows to the histograms."""
        cells = np.searchsorted(SCORE_EDGES, log_odds)
        self.scores += np.bincount(cells, minlength=len(self.scores))
        if self.reference:
            for total, new in zip(self.bins, self.reference.count(X), strict=True):
                total += new

    def collect(self):
        """Yield what Prometheus reads, besides the ready-made counters."""
        ends = [f"{edge:g}" for edge in SCORE_EDGES] + ["+Inf"]
        buckets = list(zip(ends, np.cumsum(self.scores).tolist(), strict=True))
        about = "Log-odds of scored candidates, before the correction."
        yield HistogramMetricFamily("recbal_score_log_odds", about, buckets, sum_value=None)
        if self.reference:
            about = "Scored candidates in the bins of each feature."
            family = CounterMetricFamily("recbal_feature_rows", about, labels=["feature", "bin"])
            for name, counts in zip(self.reference.names, self.bins, strict=True):
                for i, count in enumerate(counts.tolist()):
                    family.add_metric([name, str(i)], count)
            yield family


# --- the command ----------------------------------------------------------------------------


def main(arguments=None):
    """Serve a model file; one line and a non-zero code where that cannot be done."""
    given = _arguments(arguments)
    _serving.log_as_json()
    limits = Limits(given.max_candidates, given.max_bytes, given.body_seconds, given.max_waiting)
    try:
        app = create_app(
            load_model(given.model), limits=limits, correction_file=given.correction_file
        )
        listening = _serving.bind(given.host, given.port)
    except RecbalError as error:
        print(f"recbal_utils.serve: {error}", file=sys.stderr)
        return 1
    _serving.run(
        app,
        listening,
        head_seconds=given.head_seconds,
        request_seconds=given.body_seconds + 10,
        stop_seconds=given.stop_seconds,
        max_connections=given.max_connections,
    )
    return 0


def _arguments(arguments):
    parser = argparse.ArgumentParser(prog="python -m recbal_utils.serve", description=__doc__)
    parser.add_argument("model", help="a file that recbal_utils.export.save_model wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one, told in the log")
    parser.add_argument("--correction-file", help="where the monitor leaves its correction")
    parser.add_argument("--max-candidates", type=int, default=Limits.candidates)
    parser.add_argument("--max-bytes", type=int, default=Limits.body_bytes)
    parser.add_argument("--head-seconds", type=float, default=5.0)
    parser.add_argument("--body-seconds", type=float, default=Limits.body_seconds)
    parser.add_argument("--max-waiting", type=int, default=Limits.waiting)
    parser.add_argument("--max-connections", type=int, default=512)
    parser.add_argument("--stop-seconds", type=int, default=10)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
