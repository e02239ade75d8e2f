"""A TCP proxy on loopback that cuts or alters answers: the network faults of the tests."""

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

_PIECE: Final = 2**14

FATES: Final = {"busy": 0.15, "reset": 0.15, "cut": 0.3, "slow": 0.1, "fine": 0.3}
"""How likely each fate of a connection is in bad weather."""
_SLOW_S: Final = 0.03
"""Pause before each piece of a slow answer."""
_LONGEST: Final = 400_000
"""Bytes after which the best connection of bad weather breaks, so that new ones are made."""


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
    refusal: tuple[int, str] | None = None
    """Status and S3 error code that every request is answered with, instead of being passed on."""
    weather: random.Random | None = None
    """Dice for the fate of each connection; None = fine weather."""
    fates: Counter[str] = field(default_factory=Counter)
    """Fates so far."""


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
                if faults.refusal is not None:
                    threading.Thread(target=_refuse, args=(client, *faults.refusal)).start()
                    continue
                fate = _fate(faults)
                if fate == "busy":
                    threading.Thread(target=_refuse, args=(client, 503, "SlowDown")).start()
                elif fate == "reset":
                    threading.Thread(target=_reset, args=(client,)).start()
                else:
                    upstream = socket.create_connection((host, int(port)))
                    _connect(client, upstream, faults, fate)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield faults
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def _fate(faults: Faults) -> str:
    if faults.weather is None:
        return "fine"
    (fate,) = faults.weather.choices([*FATES], [*FATES.values()])
    faults.fates[fate] += 1
    return fate


def _refuse(client: socket.socket, status: int, code: str) -> None:
    """Answer the first request of a connection as a busy or unwilling store does, and hang up."""
    body = f"<Error><Code>{code}</Code><Message>as the test asks</Message></Error>".encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    with contextlib.suppress(OSError), client:
        _head(client)
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        client.shutdown(socket.SHUT_WR)
        while client.recv(_PIECE):  # a body that was on its way; closing at once would reset
            pass


def _reset(client: socket.socket) -> None:
    """Break a connection without a word, once it has asked for something."""
    with contextlib.suppress(OSError), client:
        _head(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _head(client: socket.socket) -> None:
    seen = b""
    while b"\r\n\r\n" not in seen and (piece := client.recv(_PIECE)):
        seen += piece


def _connect(
    client: socket.socket, upstream: socket.socket, faults: Faults, fate: str = "fine"
) -> None:
    allowed = faults.cuts.pop(0) if faults.cuts else None
    if faults.weather is not None:
        allowed = faults.weather.randrange(40_000 if fate == "cut" else _LONGEST)
    flip = faults.flips.pop(0) if faults.flips and allowed is None else None
    threading.Thread(target=_questions, args=(client, upstream), daemon=True).start()
    pause_s = _SLOW_S if fate == "slow" else 0.0
    answers = (client, upstream, allowed, flip, pause_s, faults)
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
    pause_s: float,
    faults: Faults,
) -> None:
    at = 0
    with contextlib.suppress(OSError), client, upstream:
        # Waiting for the answer before cutting means that the request has been carried out.
        while data := bytearray(upstream.recv(_PIECE)):
            if flip is not None and at <= flip < at + len(data):
                data[flip - at] ^= 1
            at += len(data)
            time.sleep(pause_s)
            if allowed is not None and at > allowed:
                client.sendall(data[: len(data) - (at - allowed)])
                client.shutdown(socket.SHUT_RDWR)
                faults.n_cut += 1
                return
            client.sendall(data)
