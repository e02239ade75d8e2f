"""A TCP proxy on loopback that cuts or alters answers: the network faults of the tests."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

_PIECE: Final = 2**14


@dataclass
class Faults:
    """What the proxy does; tests change it while it runs."""

    endpoint: str
    cuts: list[int] = field(default_factory=list)
    """Bytes of the answer that each next connection lets through before it is closed."""
    flips: list[int] = field(default_factory=list)
    """Place of the byte of the answer that each next connection alters, when no cut is due."""
    n_cut: int = 0
    """Connections that were cut so far."""


@contextmanager
def proxy(upstream: str) -> Iterator[Faults]:
    """Stand between a client and `http://HOST:PORT`; without cuts it passes everything on."""
    host, _, port = upstream.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        faults = Faults(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                _connect(client, socket.create_connection((host, int(port))), faults)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield faults
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def _connect(client: socket.socket, upstream: socket.socket, faults: Faults) -> None:
    allowed = faults.cuts.pop(0) if faults.cuts else None
    flip = faults.flips.pop(0) if faults.flips and allowed is None else None
    threading.Thread(target=_questions, args=(client, upstream), daemon=True).start()
    answers = (client, upstream, allowed, flip, faults)
    threading.Thread(target=_answers, args=answers, daemon=True).start()


def _questions(client: socket.socket, upstream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(_PIECE):
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)


def _answers(
    client: socket.socket,
    upstream: socket.socket,
    allowed: int | None,
    flip: int | None,
    faults: Faults,
) -> None:
    at = 0
    with contextlib.suppress(OSError), client, upstream:
        # Waiting for the answer before cutting means that the request has been carried out.
        while data := bytearray(upstream.recv(_PIECE)):
            if flip is not None and at <= flip < at + len(data):
                data[flip - at] ^= 1
            at += len(data)
            if allowed is not None and at > allowed:
                client.sendall(data[: len(data) - (at - allowed)])
                client.shutdown(socket.SHUT_RDWR)
                faults.n_cut += 1
                return
            client.sendall(data)
