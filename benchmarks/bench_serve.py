"""Compare ways to serve one network: alone, and behind the same HTTP endpoint.

Run: python benchmarks/bench_serve.py [--engines numpy,onnx,litert,savedmodel,compiled,predict]
     [--candidates 100,500] [--seconds 2] [--rounds 3] [--folder F] [--output F.json] [--pin]

First table, a process each, no HTTP: file size, processor seconds to import and load, memory, the
largest difference in probability from the estimator, processor milliseconds of a call (median).
`litert` takes the package ai-edge-litert where it is installed, else TensorFlow's own copy.

Second table, over HTTP: each engine has a server in a process of its own with one thread for the
network; --pin keeps them on the first core, which helps where nothing else runs there. Capacity: 4
clients that ask again as soon as they are answered. Latency: requests arrive at random (Poisson)
at half of that capacity; time runs from the moment a request was due, so that a queue is not
hidden. Engines take turns in every round, so that what else runs on the machine meets them alike;
ratios are medians of those within a round. Where the machine is busy, compare processor time and
ratios, not milliseconds.

`queue`: the 99 % latency of a core that does nothing else, fed at random at half load, if every
request took the processor time that was measured. It is a bound for that processor; a quiet machine
comes near.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from recbal_utils import _serving, client, formats, serve
from recbal_utils.errors import RecbalError
from recbal_utils.export import load_model

CLIENTS = 4
WARM_UP = 4
FEWEST = 8  # requests of the open load, however slow the server


# --- the same network in every form ---------------------------------------------------------


def prepare(folder, rows):
    """Train on a slice of the log, and save every form of the network there."""
    import keras
    from sklearn.pipeline import make_pipeline

    from recbal_utils import datasets, drift, export
    from recbal_utils.models import NetworkClassifier, preprocessing

    table = datasets.training_table()
    table = table.iloc[:: max(1, len(table) // rows)]
    X, y = datasets.matrix(table), table[datasets.LABEL].to_numpy()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    network = NetworkClassifier((128, 64), loss=loss, logits=True, initial_rate="train")
    pipeline = make_pipeline(preprocessing(), network).fit(X, y)
    reference = drift.Reference.learn(X, datasets.FEATURES)
    export.save_model(
        folder / "model.npz",
        pipeline,
        datasets.FEATURES,
        log_odds_shift=np.log(0.01),
        reference=reference,
        rows=X[:1000],
    )
    formats.save_rows(folder, X[:5000], pipeline.predict_proba(X[:5000])[:, 1])
    failed = formats.save_forms(network.model_, folder)
    for engine, why in failed.items():
        print(f"{engine} was not written: {why}", file=sys.stderr)


# --- over HTTP ------------------------------------------------------------------------------


def serve_engine(engine, folder, pin):
    """Be the server, until SIGTERM."""
    if pin:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _serving.log_as_json()
    app = serve.create_app(formats.load(engine, folder), limits=serve.Limits(waiting=10_000))
    listening = _serving.bind("127.0.0.1", 0)
    seconds = {"head_seconds": 60, "request_seconds": 60, "stop_seconds": 1}
    _serving.run(app, listening, max_connections=10_000, **seconds)


@contextlib.contextmanager
def server(engine, folder, pin):
    command = [sys.executable, __file__, "--child", "serve", "--engines", engine]
    command += ["--pin"] if pin else []
    command += ["--folder", str(folder)]
    log = folder / f"{engine}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def port_of(log, process):
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("{") and '"listening"' in line:
                return json.loads(line)["port"]
        time.sleep(0.1)
    raise SystemExit(log.read_text())


def request_bytes(model, X):
    ids = [f"product-{i}" for i in range(len(X))]
    body = json.dumps(client.request("v", ids, X, model.feature_names)).encode()
    head = "POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def ask(connection, request):
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the server answered {head[:30]!r} {body[:200]!r}")
    return body


async def closed_loop(port, request, seconds):
    """Number of answers, and seconds, of CLIENTS clients that do not wait between requests."""
    end = time.perf_counter() + seconds

    async def client():
        connection, n = await asyncio.open_connection("127.0.0.1", port), 0
        while time.perf_counter() < end:
            await ask(connection, request)
            n += 1
        connection[1].close()
        return n

    start = time.perf_counter()
    counts = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(counts), time.perf_counter() - start


async def open_loop(port, request, rate, seconds, seed=0):
    """Seconds from when each request was due to when its answer had arrived."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, size=max(FEWEST, int(rate * seconds))))
    idle, times = [], []

    async def one(at):
        connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        try:
            await ask(connection, request)
        except (asyncio.IncompleteReadError, ConnectionError):  # idle for too long: closed
            connection = await asyncio.open_connection("127.0.0.1", port)
            await ask(connection, request)
        times.append(time.perf_counter() - at)
        idle.append(connection)

    start, running = time.perf_counter(), []
    for at in start + due:
        await asyncio.sleep(max(0, at - time.perf_counter()))
        running.append(asyncio.create_task(one(at)))
    await asyncio.gather(*running)
    for _, writer in idle:
        writer.close()
    return np.array(times)


async def measure(process, port, request, seconds):
    connection = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(WARM_UP):
        await ask(connection, request)
    connection[1].close()
    used = psutil.Process(process.pid)
    before = sum(used.cpu_times()[:2])
    answers, taken = await closed_loop(port, request, seconds)
    capacity = answers / taken
    times = await open_loop(port, request, capacity / 2, 2 * seconds)
    processor = (sum(used.cpu_times()[:2]) - before) / (answers + len(times))
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return {
        "per_second": capacity,
        "p50_ms": 1000 * p50,
        "p99_ms": 1000 * p99,
        "cpu_ms": 1000 * processor,
        "queue_p99_ms": 1000 * processor * queue_p99(),
        "requests": len(times),
    }


def queue_p99(load=0.5, n=200_000):
    """Waiting and service, in service times, that 99 % of random arrivals stay below."""
    arrive = np.cumsum(np.random.default_rng(0).exponential(1 / load, n))
    start = np.arange(n) + np.maximum.accumulate(arrive - np.arange(n))
    return float(np.quantile(start + 1 - arrive, 0.99))


# --- the tables -----------------------------------------------------------------------------


def measure_alone(engines, folder, sizes):
    """Each engine in a fresh process: a frame with a row for each that is here."""
    rows = []
    for engine in engines:
        try:
            rows.append(formats.measure_apart([engine], folder, sizes))
        except RecbalError as error:
            print(error, file=sys.stderr)
    return pd.concat(rows)


def measure_http(engines, folder, sizes, seconds, rounds, pin):
    """A row for each round, number of candidates and engine."""
    model, X = load_model(folder / "model.npz"), np.load(folder / "rows.npz")["X"]
    asked = {n: request_bytes(model, X[:n]) for n in sizes}
    rows = []
    with contextlib.ExitStack() as stack:
        started = {e: stack.enter_context(server(e, folder, pin)) for e in engines}
        ports = {e: port_of(log, process) for e, (process, log) in started.items()}
        for turn in range(rounds):
            for n in sizes:
                for engine in engines:
                    process = started[engine][0]
                    found = asyncio.run(measure(process, ports[engine], asked[n], seconds))
                    rows.append({"round": turn, "candidates": n, "engine": engine, **found})
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def summary(rounds):
    """Medians over rounds, and medians of the ratios to the first engine within a round."""
    keys = ["candidates", "engine"]
    found = rounds.groupby(keys, sort=False).median().drop(columns="round")
    first = rounds.engine.iloc[0]
    times = ["p50_ms", "p99_ms", "cpu_ms"]
    table = rounds.set_index(["round", *keys])[times]
    against = table.xs(first, level="engine")
    ratios = table / against.reindex(table.index.droplevel("engine")).to_numpy()
    ratios = ratios.groupby(level=keys, sort=False).median()
    return found.join(ratios.rename(columns=lambda name: name.replace("_ms", " ratio")))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default=",".join(formats.ENGINES))
    parser.add_argument("--candidates", default="100,500")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=70_000)
    parser.add_argument("--pin", action="store_true", help="keep the servers on the first core")
    parser.add_argument("--folder", type=Path, help="keep the model's files here, and reuse them")
    parser.add_argument("--output", type=Path, help="write every round of the second table here")
    parser.add_argument("--child", choices=("prepare", "serve"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse()
    engines, sizes = args.engines.split(","), [int(n) for n in args.candidates.split(",")]
    if args.child == "prepare":
        return prepare(args.folder, args.rows)
    if args.child == "serve":
        return serve_engine(engines[0], args.folder, args.pin)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "rows.npz").exists():
            command = [sys.executable, __file__, "--child", "prepare", "--folder", str(folder)]
            subprocess.run([*command, "--rows", str(args.rows)], check=True)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        if not args.output:
            print(measure_alone(engines, folder, sizes).to_string(float_format="{:.2g}".format))
        rounds = measure_http(engines, folder, sizes, args.seconds, args.rounds, args.pin)
        print(summary(rounds).round(2).to_string())
        if args.output:
            args.output.write_text(rounds.to_json(orient="records"))
    return None


if __name__ == "__main__":
    main()
