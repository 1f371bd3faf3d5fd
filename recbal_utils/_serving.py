"""Parts of the server that know nothing of models: slow clients, log lines, a graceful stop."""

import asyncio
import datetime
import json
import logging
import signal
import socket
import sys

import h11
import threadpoolctl
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from recbal_utils.errors import RecbalError

HEAD_BYTES = 16_384
FLUSH_SECONDS = 1.0  # for a client to take what was written before its connection is cut
LATE_HEAD = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n"
    b"content-length: 53\r\nconnection: close\r\n\r\n"
    b'{"error": "The headers did not arrive in time; stop."}'
)

log = logging.getLogger("recbal.serve")


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 in which every phase of a connection has an end.

    Uvicorn limits the silence between requests only. Here the headers, the whole request and the
    reading of the answer each have a deadline, so that a client that sends a byte a second, or
    never reads, cannot keep a connection.
    """

    head_seconds = 5.0
    request_seconds = 30.0
    _deadline = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._phase("head", self.head_seconds)

    def data_received(self, data):
        if self._name == "idle":
            self._phase("head", self.head_seconds)
        super().data_received(data)
        self._notice_request()

    def on_response_complete(self):
        super().on_response_complete()
        self._phase("idle", self.timeout_keep_alive + FLUSH_SECONDS)
        self._notice_request()

    def connection_lost(self, exc):
        self._deadline.cancel()
        super().connection_lost(exc)

    def _notice_request(self):
        running = self.cycle is not None and not self.cycle.response_complete
        if running and self._name != "request":
            self._phase("request", self.request_seconds)

    def _phase(self, name, seconds):
        if self._deadline is not None:
            self._deadline.cancel()
        self._name = name
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _too_late(self):
        silent = self.conn.our_state is h11.IDLE and not self.transport.is_closing()
        if self._name == "head" and silent:
            self.transport.write(LATE_HEAD)
            self.transport.close()
            self._phase("flush", FLUSH_SECONDS)
            return
        self.transport.abort()


class JsonFormatter(logging.Formatter):
    """One JSON object a line. Of an exception: its type and place, never its text or values."""

    def format(self, record):
        now = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": now.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = _place(record.exc_info[2])
        return json.dumps(line)


def log_as_json(stream=None):
    """Send the server's and Uvicorn's log lines to `stream` (stderr) as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("recbal.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "recbal.serve" else logging.WARNING)


class Server(uvicorn.Server):
    """Uvicorn that says where it listens, in the log's form."""

    async def startup(self, sockets=None):
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            log.info("listening", extra={"fields": {"host": host, "port": port}})


def bind(host, port):
    """Return a listening socket; port 0 is any free one."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "it is no port"
        raise RecbalError(f"Cannot listen on {host}:{port}: {reason}.") from None
    return found


def run(app, listening, *, head_seconds, request_seconds, stop_seconds, max_connections):
    """Serve until SIGTERM or SIGINT; requests that are under way get their answers."""
    seconds = {"head_seconds": head_seconds, "request_seconds": request_seconds}
    protocol = type("Protocol", (GuardedProtocol,), seconds)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=max_connections,
        timeout_graceful_shutdown=stop_seconds,
    )
    # Uvicorn raises the signal again once it has stopped: by then it is nobody's business.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # Rows of one visit are too few to share: threads of the linear algebra wait for each other.
    threadpoolctl.threadpool_limits(1)
    asyncio.run(Server(config).serve(sockets=[listening]))
    log.info("stopped")


def _place(traceback):
    while traceback.tb_next:
        traceback = traceback.tb_next
    name = traceback.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
    return f"{name}:{traceback.tb_lineno}"
