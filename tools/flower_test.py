"""Run the Flower test: the stores' federated averaging by Flower and by the plain loop.

Flower goes to _build/flower/packages, apart from .venv, and first on the path, since its pins are
not those of the book. The result is _build/flower/record.json; with --keep it also replaces the
record that the project carries.
"""

import argparse
import importlib.metadata
import logging
import os
import platform
import sys
from datetime import date

from beside import install, machine, write_record
from common import BUILD, KERNEL_ENVIRONMENT, ROOT, data_cache, stop

HERE = BUILD / "flower"
PACKAGES = HERE / "packages"
REQUIREMENTS = ROOT / "requirements-flower.txt"
ROUNDS, PASSES, BATCH, LEARNING_RATE, SEED = 2, 1, 256, 0.5, 0
ALLOWED = 1e-5  # sums of float32 in another order


def stores():
    """Every store of the training weeks as a client, standardised by secure sums."""
    from recbal_utils import datasets, federated

    table = datasets.training_table()
    labels = table[datasets.LABEL]
    raw = federated.clients_of(datasets.matrix(table), labels, table["store_id"])
    scale = federated.moments(raw)
    return [federated.standardised(client, *scale) for client in raw], float(labels.mean())


def test() -> dict:
    """Train the stores twice, and describe the run."""
    import numpy as np

    from recbal_utils import federated, flower

    clients, rate = stores()
    model = federated.network(clients[0].X.shape[1], rate=rate, seed=SEED)
    start, local = model.get_weights(), federated.LocalTraining(model, BATCH, PASSES)
    settings = {"rounds": ROUNDS, "learning_rate": LEARNING_RATE, "seed": SEED}
    plain = federated.fed_avg(start, clients, local, **settings)
    print(f"flower-test: plain loop done, {len(clients)} stores", flush=True)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    found, sent = flower.fed_avg(start, clients, local, **settings)
    gap = lambda a, b: max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))
    versions = {name: importlib.metadata.version(name) for name in ("flwr", "protobuf", "keras")}
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {**versions, "python": platform.python_version()},
        "stores": len(clients),
        "rounds": ROUNDS,
        "rows": sum(len(client) for client in clients),
        "apart": gap(plain, found),
        "moved": gap(plain, start),
        "bytes": {"Flower": sent, "plain": federated.bytes_sent(start, len(clients), ROUNDS)},
    }


def verdict(found: dict) -> str:
    """One line on what came out; stops where the two disagree."""
    if not found["apart"] <= ALLOWED < found["moved"]:
        stop(
            f"flower-test: weights differ by {found['apart']:.3g} at most, and training moved them "
            f"by {found['moved']:.3g}: the two loops disagree"
        )
    return (
        f"{found['stores']} stores, {found['rounds']} rounds: weights of Flower and of the plain "
        f"loop differ by {found['apart']:.1e} at most; training moved them by {found['moved']:.2f}"
    )


def main() -> None:
    """Install Flower, run, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="replace the project's record too")
    arguments = parser.parse_args()
    os.environ.update(KERNEL_ENVIRONMENT, RECBAL_CACHE=data_cache())
    install(PACKAGES, REQUIREMENTS, "flower-test", "Flower", "0.1 GB")
    sys.path[:0] = [str(PACKAGES)]
    from execute import native_stderr_to

    from recbal_utils import flower
    from recbal_utils.errors import RecbalError

    try:
        with native_stderr_to(BUILD / "log" / "flower.txt"):
            found = test()
        print(f"flower-test: {verdict(found)}")
    except RecbalError as error:
        stop(f"flower-test: {error}")
    write_record(found, "flower-test", flower.FRESH, flower.CARRIED if arguments.keep else None)


if __name__ == "__main__":
    main()
