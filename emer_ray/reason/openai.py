"""Models behind an OpenAI-compatible endpoint, hosted or on a machine of yours.

Requests are bounded in flight and in rate; what may pass (429, 5xx, resets, silence, a broken body)
is tried again after `Retry-After` or a jittered, growing pause; what will not is the clip's failure
(`rejected`) or, where every clip would meet it (key, model, quota), the end of the run. A 200 is
believed only when its body is whole JSON with a choice in it. The key comes from the environment
and goes into one header, nowhere else.
"""

import base64
import email.utils
import io
import ipaddress
import json
import logging
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile
from PIL import Image

from emer_ray import meter
from emer_ray.config import ModelConfig, PriceConfig
from emer_ray.errors import BudgetError, ClipError, ConfigError, ModelError
from emer_ray.reason import Seat
from emer_ray.records import AUDIO_HZ, Frames, Modality, Pcm, Reply, Request, is_gated

OPENAI: Final = "https://api.openai.com/v1"

NOT_RESULTS: Final = frozenset(
    {
        *("base_url", "key_env", "plain_http", "in_flight", "requests_per_min"),
        *("tokens_per_min", "timeout_s", "tries"),
    }
)
"""Options that say where and how fast, not what."""

BACKOFF_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
LONGEST_RETRY_AFTER_S: Final = 600.0
"""A server that asks for more patience than this has failed the clip."""
MOST_BYTES: Final = 16 * 2**20
"""Of one answer's body; more is no answer."""
FRAME_TOKENS: Final = 1500
AUDIO_TOKENS_PER_S: Final = 50
"""Guesses on the high side, for limits, until the endpoint has told what a request takes."""

TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
EVERY_CLIP: Final = frozenset({401, 402, 403, 404, 405})
"""What one request meets here, all will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIOptions:
    """`models.<name>.options` of this backend."""

    base_url: str = OPENAI
    key_env: str = ""
    """Environment variable with the key; empty = OPENAI_API_KEY at OpenAI, none elsewhere."""
    plain_http: bool = False
    """Allow a key to travel over http to another host, as inside a private network."""
    video: Literal["none", "images", "video_url"] = "images"
    """images: one part per frame. video_url: the frames as one data URL of JPEGs (vLLM)."""
    audio: Literal["none", "input_audio", "audio_url"] = "none"
    """input_audio: WAV as OpenAI takes it (and vLLM). audio_url: a data URL."""
    detail: Literal["auto", "low", "high"] | None = None
    """Of images; null = not sent."""
    jpeg_quality: int = 90
    structured: bool = True
    """Ask for the answer's JSON schema (`response_format`) where a step has one."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[str, ...] = ()
    """Keys of the body that the endpoint does not take, e.g. temperature or seed."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys added to the body as they are."""
    in_flight: int = 8
    """Requests at a time, over all actors."""
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    timeout_s: float = 120.0
    """For one request, first byte to last."""
    tries: int = 6

    @classmethod
    def of(cls, model: ModelConfig) -> "OpenAIOptions":
        """Check plain options; raises ConfigError for what is unknown or cannot be."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(model.options.keys() - known):
            raise ConfigError(
                f"openai backend: unknown option {unknown[0]}; known: {', '.join(sorted(known))}"
            )
        given: dict[str, Any] = dict(model.options)
        if "omit" in given:
            given["omit"] = tuple(given["omit"])
        options = cls(**given)
        options._check(model)
        return options

    def _check(self, model: ModelConfig) -> None:
        if not model.model:
            raise ConfigError("openai backend: set models.<name>.model to the endpoint's model id")
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"openai backend: base_url {self.base_url!r} is no http(s) address")
        if url.username or url.password or url.query:
            raise ConfigError(
                "openai backend: base_url holds credentials or a query, which would be recorded; "
                "put the key into the environment and its variable's name into key_env"
            )
        for name, one_of in (
            ("video", ("none", "images", "video_url")),
            ("audio", ("none", "input_audio", "audio_url")),
            ("max_tokens_name", ("max_tokens", "max_completion_tokens")),
        ):
            if getattr(self, name) not in one_of:
                raise ConfigError(
                    f"openai backend: {name} = {getattr(self, name)!r}; take {', '.join(one_of)}"
                )
        for name in ("in_flight", "tries", "timeout_s", "requests_per_min", "tokens_per_min"):
            given = getattr(self, name)
            if given is not None and not (isinstance(given, int | float) and given > 0):
                raise ConfigError(f"openai backend: {name} = {given!r}; give a number above 0")
        if url.scheme == "http" and self.key_name and not (self.plain_http or self.is_local):
            raise ConfigError(
                f"openai backend: {self.base_url} would carry the key unencrypted; use https, or "
                f"set plain_http = true inside a private network"
            )

    @property
    def key_name(self) -> str:
        """The environment variable that holds the key; empty = no key."""
        return self.key_env or ("OPENAI_API_KEY" if self.base_url == OPENAI else "")

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is this machine, so that nothing leaves it."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the endpoint's dialect can carry."""
        seen: set[Modality] = {"text"}
        if self.video != "none":
            seen.add("video")
        if self.audio != "none":
            seen.add("audio")
        return frozenset(seen)

    def key(self) -> str | None:
        """Read the key; raises ConfigError where the environment has none."""
        if not self.key_name:
            return None
        key = os.environ.get(self.key_name, "").strip()
        if not key:
            raise ConfigError(
                f"openai backend: {self.key_name} is not set; export it where the job is started, "
                f"and hand it to workers through the job's runtime environment"
            )
        return key


def is_loopback(host: str) -> bool:
    """Tell whether a host name is this machine for certain."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Bucket:
    """A token bucket: so much per minute, and never more at once than a few seconds' worth."""

    def __init__(self, per_min: float | None) -> None:
        self._rate = None if per_min is None else per_min / 60
        self._most = None if per_min is None else max(1.0, per_min / 12)
        self._level = self._most or 0.0
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, amount: float) -> float:
        """Take an amount, going into debt; returns the seconds to wait before using it."""
        if self._rate is None or self._most is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._level = min(self._most, self._level + (now - self._at) * self._rate) - amount
            self._at = now
            return max(0.0, -self._level / self._rate)


class Purse:
    """What one actor may spend. Money is set aside before a request and settled after it."""

    def __init__(self, usd: float | None) -> None:
        self._left = usd
        self._aside = 0.0
        self._settled = threading.Condition()

    def set_aside(self, usd: float) -> None:
        """Wait for enough; raises BudgetError where it cannot come back."""
        with self._settled:
            while self._left is not None and self._aside + usd > self._left:
                if not self._aside:
                    raise BudgetError(
                        f"budget.usd: the next request may cost {usd:.4f} USD, of which "
                        f"{self._left:.4f} are left to this actor; what is done is stored, "
                        f"starting again with a larger budget.usd goes on"
                    )
                self._settled.wait()
            self._aside += usd

    def settle(self, aside: float, usd: float) -> None:
        """Give back what was set aside and pay what it cost."""
        with self._settled:
            self._aside -= aside
            if self._aside < 1e-12:
                self._aside = 0.0
            if self._left is not None:
                self._left -= usd
            self._settled.notify_all()


class _Transient(Exception):
    """May pass: try again, not before `pause_s`."""

    def __init__(self, message: str, pause_s: float | None = None, *, slow: bool = False) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        self.slow = slow


def _replied(future: Future[Reply | ClipError]) -> Reply | ClipError | None:
    answered = not future.cancelled() and future.exception() is None
    return future.result() if answered else None


class OpenAIReasoner:
    """Asks an endpoint, several requests at a time."""

    def __init__(self, model: ModelConfig, seat: Seat) -> None:
        self._model = model
        self._options = options = OpenAIOptions.of(model)
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        # one line per request, with the address of the endpoint, helps nobody
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            timeout=httpx.Timeout(options.timeout_s, connect=min(30.0, options.timeout_s)),
            follow_redirects=False,  # clips and the key go where they were sent, nowhere else
            trust_env=not options.is_local,  # no proxy between us and this machine
            limits=httpx.Limits(max_connections=None),
        )
        threads = max(1, options.in_flight // seat.actors)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="openai")
        self._requests = Bucket(_share(options.requests_per_min, seat))
        self._tokens = Bucket(_share(options.tokens_per_min, seat))
        self._purse = Purse(seat.usd)
        self._quiet_until = 0.0
        self._most_in: dict[str, int] = {}
        self._stop = threading.Event()

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        """Ask all; one reply or failure per request, in order.

        Raises ConfigError, ModelError or BudgetError for what concerns the run.
        """
        key = self._options.key()
        self._stop.clear()
        futures = [  # on other threads, on the account of this one
            self._threads.submit(copy_context().run, self._ask, request, key)
            for request in requests
        ]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        if waiting:
            self._stop.set()
            for future in waiting:
                future.cancel()
            wait(waiting)
        for future in done:
            if error := future.exception():
                if isinstance(error, BudgetError):  # what is paid for need not be lost
                    error.replies = [_replied(future) for future in futures]
                raise error
        return [future.result() for future in futures]

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def _ask(self, request: Request, key: str | None) -> Reply | ClipError:
        options = self._options
        if is_gated(request.licence_tag) and not (options.is_local or self._model.send_gated):
            return ClipError(
                "gated",
                f"licence tag {request.licence_tag!r} is gated or unknown, so the clip was not "
                f"sent to {urlsplit(options.base_url).hostname}; where its terms allow that, set "
                f"send_gated = true for the model",
            )
        content = json.dumps(self.body(request), ensure_ascii=False).encode()
        guess = max(self._most_in.get(request.step, 0), tokens_of(request, self._most_in))
        aside = cost(self._model.price, guess, self._model.max_tokens) or 0.0
        self._purse.set_aside(aside)
        paid = 0.0
        try:
            reply = self._tried(request, content, key, guess)
            if isinstance(reply, Reply):
                paid = reply.usd or 0.0
            return reply
        finally:
            self._purse.settle(aside, paid)

    def _tried(
        self, request: Request, content: bytes, key: str | None, guess: int
    ) -> Reply | ClipError:
        """Ask until an answer comes or the tries are used up."""
        said = ""
        slow = False
        for attempt in range(self._options.tries):
            self._queue(guess + self._model.max_tokens)
            started = time.perf_counter()
            try:
                return self._answered(request, self._posted(content, key), started, guess)
            except ClipError as error:
                return ClipError(error.kind, _hidden(str(error), key))
            except (_Transient, httpx.TransportError) as error:
                slow = isinstance(error, httpx.TimeoutException) or getattr(error, "slow", False)
                said = _hidden(str(error) or type(error).__name__, key)
                pause_s = getattr(error, "pause_s", None)
            if pause_s is not None and pause_s > LONGEST_RETRY_AFTER_S:
                return ClipError("endpoint", f"the server asks to wait {pause_s:.0f} s: {said}")
            if attempt + 1 < self._options.tries:
                meter.add("retries", "slow_endpoint" if slow else "endpoint")
                self._pause(attempt, pause_s)
        return ClipError("timeout" if slow else "endpoint", f"{self._options.tries} tries: {said}")

    def _queue(self, tokens: int) -> None:
        """Wait for the rate limits and for a pause that the server asked all requests to make."""
        until = max(self._requests.take(1), self._tokens.take(tokens))
        self._sleep(max(until, self._quiet_until - time.monotonic()))

    def _pause(self, attempt: int, asked_s: float | None) -> None:
        if asked_s is not None:
            self._quiet_until = max(self._quiet_until, time.monotonic() + asked_s)
            # a little apart from each other, never earlier than asked
            self._sleep(asked_s + random.uniform(0, 0.1 * asked_s))  # noqa: S311 - no secret
        else:
            most = min(LONGEST_PAUSE_S, BACKOFF_S * 2**attempt)
            self._sleep(random.uniform(most / 2, most))  # noqa: S311 - no secret

    def _sleep(self, seconds: float) -> None:
        if seconds > 0 and self._stop.wait(seconds):
            raise _Transient("the run stops")

    def _posted(self, content: bytes, key: str | None) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request and read its whole answer, within its time and size."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        deadline = time.monotonic() + self._options.timeout_s
        chunks: list[bytes] = []
        size = 0
        with self._client.stream("POST", self._url, content=content, headers=headers) as response:
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise _Transient(f"no whole answer in {self._options.timeout_s:g} s", slow=True)
                if size > MOST_BYTES:
                    raise _Transient(f"an answer of more than {MOST_BYTES} bytes")
            return response.status_code, dict(response.headers), b"".join(chunks)

    def _answered(
        self,
        request: Request,
        response: tuple[int, Mapping[str, str], bytes],
        started: float,
        guess: int,
    ) -> Reply | ClipError:
        status, headers, data = response
        found = _json(data)
        error = found.get("error") if isinstance(found, dict) else None
        if status != 200:
            raise self._failure(status, headers, error or data[:300].decode(errors="replace"))
        if error:
            code = error.get("code") if isinstance(error, dict) else None
            as_if = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise self._failure(as_if, headers, error)
        if not isinstance(found, dict):
            raise _Transient(f"a 200 whose body is no JSON object: {data[:80]!r}")
        choices = found.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise _Transient(f"a 200 without a choice: {data[:80]!r}")
        return self._reply(request, choices[0], found.get("usage"), started, guess)

    def _reply(
        self, request: Request, choice: Mapping[str, Any], usage: Any, started: float, guess: int
    ) -> Reply:
        message = choice.get("message")
        if not isinstance(message, dict):
            raise _Transient("a choice without a message")
        text, finish = message.get("content"), str(choice.get("finish_reason") or "stop")
        if isinstance(text, list):
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        if message.get("refusal"):
            text, finish = str(message["refusal"]), "refusal"
        tokens_in, tokens_out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        if tokens_in is not None:
            self._most_in[request.step] = max(tokens_in, self._most_in.get(request.step, 0))
        raw = text if isinstance(text, str) else ""
        return Reply(
            raw=raw,
            finish=finish,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            latency_s=time.perf_counter() - started,
            usd=cost(
                self._model.price,
                guess if tokens_in is None else tokens_in,
                estimate(raw) if tokens_out is None else tokens_out,
            ),
        )

    def _failure(self, status: int, headers: Mapping[str, str], error: Any) -> Exception:
        """Tell what an error means: for this try, for this clip, or for the run."""
        code = error.get("code") if isinstance(error, dict) else None
        text = error.get("message", error) if isinstance(error, dict) else error
        said = f"{status} {str(text)[:200]!r}"
        host = urlsplit(self._options.base_url).hostname
        if code == "insufficient_quota":
            return ModelError(f"{host}: the account has no quota left; {self._safe(said)}")
        if status in TRANSIENT or status >= 500:
            return _Transient(said, retry_after_s(headers))
        if status in EVERY_CLIP or 300 <= status < 400:
            return ModelError(
                f"{host} answers {self._safe(said)}; check models.<name>.model "
                f"{self._model.model!r}, base_url, and the key in "
                f"{self._options.key_name or 'key_env (none is named)'}"
            )
        if code in ("content_filter", "content_policy_violation"):
            return ClipError("refused", f"the endpoint's filter: {said}")
        return ClipError("rejected", said)

    def _safe(self, said: str) -> str:
        return _hidden(said, os.environ.get(self._options.key_name) or None)

    def body(self, request: Request) -> dict[str, Any]:
        """Write the request as the endpoint's dialect wants it."""
        options, model = self._options, self._model
        body: dict[str, Any] = {
            "model": model.model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": self._content(request)},
            ],
            "temperature": model.temperature,
            "top_p": model.top_p,
            "seed": request.seed,
            options.max_tokens_name: model.max_tokens,
        }
        if options.structured and request.answer_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": request.form,
                    "schema": request.answer_schema,
                    "strict": True,
                },
            }
        return {key: value for key, value in body.items() if key not in options.omit} | {
            **options.extra
        }

    def _content(self, request: Request) -> str | list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for part in request.parts:
            if part.kind == "text":
                parts.append({"type": "text", "text": part.text})
            elif part.kind == "frames" and request.clues.frames is not None:
                parts += self._pictures(request.clues.frames)
            elif part.kind == "audio" and request.clues.pcm is not None:
                parts.append(self._sound(request.clues.pcm))
        if all(part["type"] == "text" for part in parts):
            return "\n\n".join(part["text"] for part in parts)
        return parts

    def _pictures(self, frames: Frames) -> list[dict[str, Any]]:
        encoded = [jpeg(frame, self._options.jpeg_quality) for frame in frames]
        if self._options.video == "video_url":
            url = "data:video/jpeg;base64," + ",".join(encoded)
            return [{"type": "video_url", "video_url": {"url": url}}]
        detail = {"detail": self._options.detail} if self._options.detail else {}
        return [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{one}", **detail}}
            for one in encoded
        ]

    def _sound(self, pcm: Pcm) -> dict[str, Any]:
        data = wav(pcm)
        if self._options.audio == "audio_url":
            return {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}}
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def _share(limit: float | None, seat: Seat) -> float | None:
    return None if limit is None else limit / seat.actors


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and found >= 0 else None


def _hidden(text: str, key: str | None) -> str:
    """Take the key out of what a server says: some repeat it."""
    return text.replace(key, "(key)") if key else text


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after-ms` or `Retry-After`, which is seconds or a date; null where neither is."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in lower:
            return max(0.0, float(lower["retry-after-ms"]) / 1000)
        return max(0.0, float(lower["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(lower.get("retry-after", ""))
        except ValueError:
            return None
        return max(0.0, at.timestamp() - time.time())


def cost(price: PriceConfig | None, tokens_in: int, tokens_out: int) -> float | None:
    """Price a request in US dollars; null without a price table."""
    if price is None:
        return None
    tokens = tokens_in * price.input_usd + tokens_out * price.output_usd
    return tokens / 1e6 + price.request_usd


def estimate(text: str) -> int:
    """Estimate the tokens of a text without its tokenizer: UTF-8 bytes over three."""
    return -(-len(text.encode()) // 3)


def tokens_of(request: Request, known: Mapping[str, int]) -> int:
    """Guess the tokens that a request takes, as long as its step's usage is not known."""
    words = estimate(request.system) + sum(estimate(part.text) for part in request.parts)
    if request.step in known:
        return words
    frames, pcm = request.clues.frames, request.clues.pcm
    pictures = 0 if frames is None else len(frames) * FRAME_TOKENS
    return words + pictures + (0 if pcm is None else len(pcm) * AUDIO_TOKENS_PER_S // AUDIO_HZ)


def jpeg(frame: Frames, quality: int) -> str:
    """Encode a picture as JPEG, in base64."""
    sink = io.BytesIO()
    Image.fromarray(frame).save(sink, "JPEG", quality=quality)
    return base64.b64encode(sink.getvalue()).decode()


def wav(pcm: Pcm) -> str:
    """Encode sound as 16-bit WAV at 16 kHz, in base64."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(pcm, -1, 1), AUDIO_HZ, format="WAV", subtype="PCM_16")
    return base64.b64encode(sink.getvalue()).decode()
