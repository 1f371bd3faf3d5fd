"""Federated averaging under Flower, an optional extra, and the record of it that the book carries.

`fed_avg` takes what `federated.fed_avg` takes and lets Flower do the rest: its FedAvg strategy
picks the clients and averages, its messages carry the weights, its `ClientApp` calls the client.
Messages are handed over inside this process, since Flower's own simulation needs Ray.

`make flower-test` installs Flower beside the book's environment, compares it with the plain loop
on the stores of the log, and writes a record; the project carries the record of one such run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from recbal_utils import _record
from recbal_utils.errors import RecbalError
from recbal_utils.federated import Client, decayed

FRESH = Path("_build") / "flower" / "record.json"
CARRIED = Path("studies") / "19_federated_private.json"
NEEDED = ("date", "machine", "versions", "stores", "rounds", "rows", "apart", "moved", "bytes")


def fed_avg(
    weights: Sequence[np.ndarray],
    clients: Sequence[Client],
    local: Callable,
    *,
    rounds: int,
    learning_rate: float,
    seed: int = 0,
) -> tuple[list[np.ndarray], int]:
    """Federated averaging by Flower, with the clients, steps and seeds of `federated.fed_avg`.

    Parameters
    ----------
    weights, clients, local, rounds, learning_rate, seed
        As for `federated.fed_avg`.

    Returns
    -------
    weights : list of ndarray
    bytes : int
        Of the arrays in Flower's messages, both ways.

    Raises
    ------
    RecbalError
        Flower is not installed.
    """
    flwr = _flower()

    def train(message, _):
        number = int(message.content["config"]["server-round"]) - 1
        place = message.metadata.dst_node_id - 1
        rate = decayed(learning_rate, number, rounds)
        rng = np.random.default_rng((seed, number, place))
        given = message.content["arrays"].to_numpy_ndarrays()
        found = local(given, clients[place], rate, rng)
        content = flwr.app.RecordDict(
            {
                "arrays": flwr.app.ArrayRecord(list(found)),
                "metrics": flwr.app.MetricRecord({"num-examples": len(clients[place])}),
            }
        )
        return flwr.app.Message(content=content, reply_to=message)

    app = flwr.clientapp.ClientApp()
    app.train()(train)
    grid = _in_process(flwr, app, len(clients))
    least = {"min_train_nodes": len(clients), "min_available_nodes": len(clients)}
    strategy = flwr.serverapp.strategy.FedAvg(fraction_evaluate=0.0, **least)
    result = strategy.start(grid, flwr.app.ArrayRecord(list(weights)), num_rounds=rounds)
    return [np.asarray(part) for part in result.arrays.to_numpy_ndarrays()], grid.bytes


def record(project: Path | None = None) -> dict:
    """Read the record of the last Flower test: this machine's own, else the one carried.

    Parameters
    ----------
    project : path, optional
        Folder of the project; by default the nearest one above with a `_config.yml`.

    Returns
    -------
    dict
        What the test wrote, and `source`: "measured on this machine" or "recorded", with the date
        and the kind of machine.

    Raises
    ------
    RecbalError
        There is no record, or it is damaged.
    """
    return _record.read(FRESH, CARRIED, NEEDED, "flower", project)


def _flower():
    """The package, with the parts used here; one line that names the extra where it is missing."""
    try:
        import flwr.app
        import flwr.clientapp
        import flwr.serverapp.strategy
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError as error:
        raise RecbalError(
            f"Flower is not installed ({error}): it is an extra of its own, in "
            "requirements-flower.txt, which 'make flower-test' installs and runs."
        ) from None
    # Messages name the task and the node that made them; a process under Flower is told its own.
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0
    return flwr


def _in_process(flwr, app, n_clients):
    """Return Flower's grid of nodes 1 to n, each of them a call of the app in this process."""
    contexts = {
        node: flwr.app.Context(1, node, {}, flwr.app.RecordDict(), {})
        for node in range(1, n_clients + 1)
    }

    class InProcess(flwr.serverapp.Grid):
        bytes = 0
        run = None

        def set_run(self, run):
            self.run = run

        def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
            named = {"message_type": message_type, "dst_node_id": dst_node_id}
            return flwr.app.Message(content=content, group_id=group_id, ttl=ttl, **named)

        def get_node_ids(self):
            return list(contexts)

        def push_messages(self, messages):
            raise NotImplementedError("messages are answered at once: use send_and_receive")

        pull_messages = push_messages

        def send_and_receive(self, messages, *, timeout=None):
            return [self._answer(message) for message in messages]

        def _answer(self, message):
            reply = app(message, contexts[message.metadata.dst_node_id])
            for content in (message.content, reply.content):
                arrays = content["arrays"].to_numpy_ndarrays()
                self.bytes += sum(part.nbytes for part in arrays)
            return reply

    return InProcess()
