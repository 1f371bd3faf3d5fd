"""Compare ways to serve one network: alone, and behind the same HTTP endpoint.

Run: python benchmarks/bench_serve.py [--engines numpy,compiled,predict,savedmodel,onnx,litert]
     [--packages FOLDER] [--candidates 100,500] [--seconds 4] [--rows 70000]

`onnx` needs onnxruntime and tf2onnx, `litert` needs ai-edge-litert; --packages names a folder
that holds them, for the project does not ask for them.

First table, one process, no HTTP: file size, seconds to import and load, milliseconds a call
(median), and the largest difference in probability from the estimator.

Second table, over HTTP: the server runs in a process of its own with one thread for the network;
--pin keeps it on the first core, which helps where nothing else runs there. Capacity: 4 clients
that ask again as soon as they are answered. Latency: requests arrive at random (Poisson) at half
of that capacity; time runs from the moment a request was due, so that a queue is not hidden. Where
other work shares the machine, compare processor time and ratios, not milliseconds.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from recbal_utils import _serving, serve
from recbal_utils.export import load_model

ENGINES = ("numpy", "compiled", "predict", "savedmodel", "onnx", "litert")
CLIENTS = 4
WARM_UP = 20


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
    np.savez(folder / "rows.npz", X=X[:5000], p=pipeline.predict_proba(X[:5000])[:, 1])
    save_forms(network.model_, folder)


def save_forms(model, folder):
    model.save(folder / "model.keras")
    model.export(folder / "savedmodel", verbose=False)
    with contextlib.suppress(Exception):  # the package is not there, or cannot read the model
        model.export(folder / "model.onnx", format="onnx", verbose=False)
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "savedmodel"))
    (folder / "model.tflite").write_bytes(converter.convert())


@dataclasses.dataclass
class Engine:
    """A scoring model whose network runs in another library; its preprocessing stays."""

    model: object
    network: object

    def __getattr__(self, name):
        return getattr(self.model, name)

    def log_odds(self, X):
        X = np.asarray(X, np.float32)
        for kind, *numbers in self.model.steps:
            X = np.log1p(X) if kind == "log1p" else (X - numbers[0]) / numbers[1]
        z = np.asarray(self.network(X))[:, 0].astype(np.float64)
        return z + self.model.log_odds_shift


def load(engine, folder):
    model = load_model(folder / "model.npz")
    return model if engine == "numpy" else Engine(model, LOADERS[engine](folder))


def _compiled(folder):
    import keras
    import tensorflow as tf

    model = keras.models.load_model(folder / "model.keras", compile=False)
    signature = [tf.TensorSpec((None, model.input_shape[1]), tf.float32)]
    return tf.function(lambda X: model(X, training=False), input_signature=signature)


def _predict(folder):
    import keras

    model = keras.models.load_model(folder / "model.keras", compile=False)
    return lambda X: model.predict(X, verbose=0)


def _savedmodel(folder):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "savedmodel"))
    return lambda X: loaded.serve(tf.constant(X))


def _onnx(folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    name = session.get_inputs()[0].name
    return lambda X: session.run(None, {name: X})[0]


def _litert(folder):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=1)
    entry = interpreter.get_input_details()[0]["index"]
    leave = interpreter.get_output_details()[0]["index"]
    shape = []

    def run(X):
        if shape != [X.shape]:
            shape[:] = [X.shape]
            interpreter.resize_tensor_input(entry, X.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry, X)
        interpreter.invoke()
        return interpreter.get_tensor(leave)

    return run


LOADERS = {
    "compiled": _compiled,
    "predict": _predict,
    "savedmodel": _savedmodel,
    "onnx": _onnx,
    "litert": _litert,
}
FILES = {
    "numpy": "model.npz",
    "compiled": "model.keras",
    "predict": "model.keras",
    "savedmodel": "savedmodel",
    "onnx": "model.onnx",
    "litert": "model.tflite",
}


# --- alone ----------------------------------------------------------------------------------


def alone(engine, folder, sizes):
    """Print one JSON line: what the engine costs without a server."""
    start = time.perf_counter()
    model = load(engine, folder)
    loading = time.perf_counter() - start
    rows = np.load(folder / "rows.npz")
    scored = model.log_odds(rows["X"]) - model.log_odds_shift
    error = np.abs(1 / (1 + np.exp(-scored)) - rows["p"]).max()
    times = {n: 1000 * call_seconds(model, rows["X"][:n]) for n in sizes}
    path = folder / FILES[engine]
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files) / 1024
    memory = psutil.Process().memory_info().rss / 2**20
    print(json.dumps({"kB": size, "load": loading, "MB": memory, "error": error, "ms": times}))


def call_seconds(model, X, repeats=200):
    """Median of the processor time of one call, which other work on the machine leaves alone."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        model.log_odds(X)
        times.append(time.process_time() - start)
    return float(np.median(times[repeats // 10 :]))


# --- over HTTP ------------------------------------------------------------------------------


def serve_engine(engine, folder, pin):
    """Be the server, until SIGTERM."""
    if pin:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _serving.log_as_json()
    app = serve.create_app(load(engine, folder), limits=serve.Limits(waiting=10_000))
    listening = _serving.bind("127.0.0.1", 0)
    seconds = {"head_seconds": 60, "request_seconds": 60, "stop_seconds": 1}
    _serving.run(app, listening, max_connections=10_000, **seconds)


@contextlib.contextmanager
def server(engine, folder, packages, pin):
    command = [sys.executable, __file__, "--child", "serve", "--engines", engine]
    command += ["--pin"] if pin else []
    command += ["--folder", str(folder), "--packages", packages]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield process, port_of(folder / "log", process)
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
    features = dict(zip(model.feature_names, X.T.astype(float).tolist(), strict=True))
    ids = [f"product-{i}" for i in range(len(X))]
    body = json.dumps({"visit": "v", "candidates": ids, "features": features}).encode()
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
    """Requests a second with CLIENTS clients that do not wait between requests."""
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
    return sum(counts) / (time.perf_counter() - start)


async def open_loop(port, request, rate, seconds, seed=0):
    """Seconds from when each request was due to when its answer had arrived."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, size=int(rate * seconds)))
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
    capacity = await closed_loop(port, request, seconds)
    used = psutil.Process(process.pid)
    before = sum(used.cpu_times()[:2])
    times = await open_loop(port, request, capacity / 2, 2 * seconds)
    processor = (sum(used.cpu_times()[:2]) - before) / len(times)
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return {"rate": capacity, "p50": p50, "p99": p99, "processor": processor, "n": len(times)}


# --- the tables -----------------------------------------------------------------------------


def table_alone(engines, folder, sizes, packages):
    print(f"{'alone':11} {'kB':>7} {'load s':>7} {'MB':>6} {'error':>8}", end="")
    print("".join(f" {f'ms, {n}':>9}" for n in sizes))
    for engine in engines:
        command = [sys.executable, __file__, "--child", "alone", "--engines", engine]
        command += ["--folder", str(folder), "--packages", packages]
        command += ["--candidates", ",".join(map(str, sizes))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{engine:11} not here: {done.stderr.strip().splitlines()[-1][:80]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{engine:11} {found['kB']:7.0f} {found['load']:7.2f} {found['MB']:6.0f}", end="")
        print(f" {found['error']:8.0e}", end="")
        print("".join(f" {found['ms'][str(n)]:9.3f}" for n in sizes), flush=True)


def table_http(engines, folder, sizes, packages, seconds, pin):
    model, rows = load_model(folder / "model.npz"), np.load(folder / "rows.npz")["X"]
    first = {}
    for n in sizes:
        print(
            f"\n{f'{n} candidates':15} {'per s':>7} {'p50 ms':>8} {'p99 ms':>8} {'cpu ms':>8}",
            end="",
        )
        print(f" {'n':>6}   p50, p99, cpu against the first")
        for engine in engines:
            with server(engine, folder, packages, pin) as (process, port):
                request = request_bytes(model, rows[:n])
                found = asyncio.run(measure(process, port, request, seconds))
            first.setdefault(n, found)
            times = [1000 * found[name] for name in ("p50", "p99", "processor")]
            ratios = [found[name] / first[n][name] for name in ("p50", "p99", "processor")]
            print(f"{engine:15} {found['rate']:7.0f}", *(f"{t:8.2f}" for t in times), end=" ")
            print(f"{found['n']:6}  ", *(f"{r:6.1f}" for r in ratios), flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--candidates", default="100,500")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rows", type=int, default=70_000)
    parser.add_argument("--packages", default="", help="a folder of further packages")
    parser.add_argument("--pin", action="store_true", help="keep the server on the first core")
    parser.add_argument("--folder", type=Path, help="keep the model's files here, and reuse them")
    parser.add_argument("--child", choices=("prepare", "alone", "serve"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse()
    if args.packages:
        sys.path.append(args.packages)
    engines, sizes = args.engines.split(","), [int(n) for n in args.candidates.split(",")]
    if args.child == "prepare":
        return prepare(args.folder, args.rows)
    if args.child == "alone":
        return alone(engines[0], args.folder, sizes)
    if args.child == "serve":
        return serve_engine(engines[0], args.folder, args.pin)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "rows.npz").exists():
            command = [sys.executable, __file__, "--child", "prepare", "--folder", str(folder)]
            command += ["--rows", str(args.rows), "--packages", args.packages]
            subprocess.run(command, check=True, capture_output=True)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, network 23-128-64-1")
        table_alone(engines, folder, sizes, args.packages)
        here = [engine for engine in engines if available(engine)]
        table_http(here, folder, sizes, args.packages, args.seconds, args.pin)
    return None


def available(engine):
    needed = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}.get(engine)
    with contextlib.suppress(ImportError):
        return needed is None or bool(__import__(needed))
    return False


if __name__ == "__main__":
    main()
