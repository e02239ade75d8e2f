"""A real HTTP server with the shape of an OpenAI-compatible endpoint, and every way to misbehave.

A clip is recognised by a word of its subtitle, so that faults follow the clip and not the order of
requests. What the server received is kept: times, headers, bodies.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {
    "visual_clues": ["a smile"],
    "acoustic_clues": [],
    "lexical_clues": ["a word of thanks"],
    "explanation": "smile and words agree",
    "labels": ["happy", "grateful"],
}


@dataclass
class Received:
    """One request as it arrived."""

    at_s: float
    clip: str
    headers: dict[str, str]
    body: dict[str, Any]
    size: int
    in_flight: int


@dataclass
class ChatServer:
    """Where it listens, what it got, and what it does to a clip's nth request."""

    url: str
    received: list[Received] = field(default_factory=list)
    acts: dict[str, list[str]] = field(default_factory=dict)
    """Clip word -> what its requests meet, in turn; afterwards, and for others, `ok`."""
    now_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, clip: str) -> list[Received]:
        """List what arrived for a clip, in order."""
        return [request for request in self.received if request.clip == clip]


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """Write a whole chat completion."""
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


@contextmanager
def serving(words: Callable[[str], str], host: str = "127.0.0.1") -> Iterator[ChatServer]:
    """Serve on an address of this machine; `words` finds a clip's name in a request's text."""
    server: ChatServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            body = json.loads(data)
            clip = words(json.dumps(body["messages"], ensure_ascii=False))
            with server.lock:
                server.now_in_flight += 1
                mine = server.of(clip)
                acts = server.acts.get(clip, [])
                act = acts[len(mine)] if len(mine) < len(acts) else "ok"
                server.received.append(
                    Received(
                        at_s=time.monotonic(),
                        clip=clip,
                        headers={name.lower(): value for name, value in self.headers.items()},
                        body=body,
                        size=len(data),
                        in_flight=server.now_in_flight,
                    )
                )
            try:
                self.act(act)
            finally:
                with server.lock:
                    server.now_in_flight -= 1

        def act(self, act: str) -> None:
            name, _, argument = act.partition(":")
            match name:
                case "ok":
                    time.sleep(0.02)
                    self.send(200, completion(json.dumps(GOOD)))
                case "say":
                    self.send(200, completion(argument))
                case "status":
                    code, _, after = argument.partition(":")
                    headers = {"Retry-After": after} if after else {}
                    self.send(int(code), {"error": {"message": "as told"}}, headers)
                case "coded":
                    code, _, named = argument.partition(":")
                    echo = self.headers.get("Authorization", "")
                    error = {"message": f"no: {echo}", "code": named}
                    self.send(int(code), {"error": error})
                case "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                    self.close_connection = True
                case "slow":
                    time.sleep(float(argument))
                    self.send(200, completion(json.dumps(GOOD)))
                case "drip":
                    self.drip(float(argument))
                case "half":
                    whole = json.dumps(completion(json.dumps(GOOD))).encode()
                    self.raw(200, whole[: len(whole) // 2])
                case "short":
                    whole = json.dumps(completion(json.dumps(GOOD))).encode()
                    self.raw(200, whole[:40], length=len(whole))
                case "error_in_200":
                    self.send(200, {"error": {"message": "overloaded", "code": 503}})
                case "nothing_in_200":
                    self.send(200, {"choices": []})
                case "refusal":
                    self.send(200, completion(None, refusal="I will not."))
                case "filtered":
                    self.send(200, completion("", finish="content_filter"))
                case "loop":
                    self.send(200, completion("very happy " * 200, finish="length"))
                case "cut":
                    self.send(200, completion(json.dumps(GOOD)[:60], finish="length"))
                case "prose":
                    self.send(200, completion("As an AI, I would say happy."))
                case "no_usage":
                    answer = completion(json.dumps(GOOD))
                    del answer["usage"]
                    self.send(200, answer)
                case "redirect":
                    self.send(302, {}, {"Location": "http://198.51.100.1/elsewhere"})
                case _:
                    raise AssertionError(act)

        def send(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
            self.raw(code, json.dumps(body).encode(), headers)

        def raw(
            self,
            code: int,
            data: bytes,
            headers: dict[str, str] | None = None,
            length: int | None = None,
        ) -> None:
            try:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data) if length is None else length))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                if length is not None:
                    self.wfile.flush()
                    self.close_connection = True
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up, as some tests want

        def drip(self, seconds: float) -> None:
            """Send a byte now and then: a read timeout never fires."""
            try:
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.1)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client hung up: what the test is about
            self.close_connection = True

    http = ThreadingHTTPServer((host, 0), Handler)
    http.daemon_threads = True
    server = ChatServer(url=f"http://{host}:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
