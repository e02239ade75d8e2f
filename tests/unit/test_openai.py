"""The endpoint's client against a real server that misbehaves; both sides are asserted."""

import base64
import dataclasses
import email.utils
import io
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from emer_ray import meter, prompts
from emer_ray.config import ModelConfig
from emer_ray.errors import BudgetError, ClipError, ConfigError, ModelError
from emer_ray.reason import Seat
from emer_ray.reason import openai as backend
from emer_ray.reason.openai import OpenAIOptions, OpenAIReasoner
from emer_ray.records import Clues, Reply, Request
from tests.chat_server import ChatServer, serving

Ask = Callable[..., list[Reply | ClipError]]


def clip_in(text: str) -> str:
    found = re.search(r"clip-\w+", text)
    return found[0] if found else "?"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(clip_in) as found:
        yield found


def request(name: str, **given: Any) -> Request:
    clues = Clues(
        clip_id="secret-file-name",
        subtitle=f"these are the words of {name}",
        subtitle_source="given",
        has_video=True,
        has_audio=True,
        frames=np.full((2, 8, 12, 3), 90, np.uint8),
        frame_times_s=(0.0, 1.0),
        pcm=np.linspace(-1, 1, 1600, dtype=np.float32),
    )
    question = prompts.question(step="explain", prompt="explain", form="explanation", language="en")
    return prompts.render(question, clues, {}, seed=7, licence_tag="CC0-1.0", **given)[0]


@pytest.fixture
def ask(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    monkeypatch.setattr(backend, "BACKOFF_S", 0.05)
    made: list[OpenAIReasoner] = []

    def asked(
        *names: str, seat: Seat | None = None, model: dict[str, Any] | None = None, **options: Any
    ) -> list[Reply | ClipError]:
        options = {"base_url": server.url, "audio": "input_audio", "tries": 3, **options}
        settings = ModelConfig(backend="openai", model="m", options=options, **(model or {}))
        made.append(OpenAIReasoner(settings, seat or Seat()))
        return made[-1].explain([request(name) for name in names])

    yield asked
    for reasoner in made:
        reasoner.close()
        reasoner.close()


def kind(found: Reply | ClipError) -> str:
    return found.kind if isinstance(found, ClipError) else found.finish


def test_a_request_carries_frames_sound_words_and_the_schema(server: ChatServer, ask: Ask) -> None:
    (reply,) = ask("clip-a", model={"max_tokens": 77})
    assert isinstance(reply, Reply)
    assert (reply.tokens_in, reply.tokens_out, reply.usd) == (1000, 100, None)
    (got,) = server.received
    body = got.body
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("m", 0, 7, 77)
    system, user = body["messages"]
    assert system["content"] == prompts.text("explain", "en").strip()
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image_url", "image_url", "text", "input_audio", "text"]
    picture = user["content"][1]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (12, 8)
    sound = base64.b64decode(user["content"][4]["input_audio"]["data"])
    pcm, rate = soundfile.read(io.BytesIO(sound))
    assert (len(pcm), rate) == (1600, 16_000)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["additionalProperties"] is False
    assert "labels" in schema["required"]
    assert "secret-file-name" not in str(body)
    assert "authorization" not in got.headers


def test_dialects_differ_in_the_body_alone(server: ChatServer, ask: Ask) -> None:
    ask(
        "clip-a",
        video="video_url",
        audio="audio_url",
        structured=False,
        omit=["temperature", "seed"],
        max_tokens_name="max_completion_tokens",
        extra={"repetition_penalty": 1.05},
    )
    body = server.received[0].body
    parts = body["messages"][1]["content"]
    assert parts[1]["video_url"]["url"].startswith("data:video/jpeg;base64,")
    assert parts[1]["video_url"]["url"].count(",") == 2
    assert parts[3]["audio_url"]["url"].startswith("data:audio/wav;base64,")
    assert not {"temperature", "seed", "response_format", "max_tokens"} & body.keys()
    assert (body["max_completion_tokens"], body["repetition_penalty"]) == (1024, 1.05)


@pytest.mark.parametrize(
    ("acts", "outcome", "sent"),
    [
        (["status:500", "status:503"], "stop", 3),
        (["reset"], "stop", 2),
        (["short"], "stop", 2),
        (["half"], "stop", 2),
        (["error_in_200"], "stop", 2),
        (["nothing_in_200"], "stop", 2),
        (["status:500"] * 9, "endpoint", 3),
        (["reset"] * 9, "endpoint", 3),
        (["half"] * 9, "endpoint", 3),
        (["error_in_200"] * 9, "endpoint", 3),
        (["slow:1.5"] * 9, "timeout", 3),
        (["drip:3"] * 9, "timeout", 3),
        (["status:400"], "rejected", 1),
        (["status:422"], "rejected", 1),
        (["coded:400:content_filter"], "refused", 1),
        (["refusal"], "refusal", 1),
        (["filtered"], "content_filter", 1),
        (["loop"], "length", 1),
    ],
    ids=lambda value: value[0] + ("!" if len(value) > 3 else "") if isinstance(value, list) else "",
)
def test_each_fault_has_its_tries_and_its_outcome(
    server: ChatServer, ask: Ask, acts: list[str], outcome: str, sent: int
) -> None:
    server.acts["clip-bad"] = acts
    patience = 0.5 if outcome == "timeout" else 30  # a busy machine is no fault
    with meter.metered() as spent:
        good, bad = ask("clip-good", "clip-bad", timeout_s=patience)
    assert kind(bad) == outcome
    if outcome != "timeout":
        assert spent.counts.get("retries", {}) == ({"endpoint": sent - 1} if sent > 1 else {})
    else:
        assert spent.counts["retries"]["slow_endpoint"] >= sent - 1
    assert len(server.of("clip-bad")) == sent
    if outcome != "timeout":
        assert (kind(good), len(server.of("clip-good"))) == ("stop", 1)
    assert len({found.size for found in server.of("clip-bad")}) == 1


def test_retry_after_is_kept_to_by_all_requests(server: ChatServer, ask: Ask) -> None:
    server.acts["clip-a"] = ["status:429:1"]
    replies = ask("clip-a", "clip-b", "clip-c", in_flight=1)
    assert [kind(reply) for reply in replies] == ["stop"] * 3
    first, again = server.of("clip-a")
    assert again.at_s - first.at_s >= 1.0
    assert min(found.at_s for found in server.received[1:]) - first.at_s >= 0.99


def test_retry_after_is_seconds_or_a_date_and_nothing_else() -> None:
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert backend.retry_after_s({"Retry-After": soon}) == pytest.approx(30, abs=2)
    assert backend.retry_after_s({"retry-after-ms": "250", "Retry-After": "9"}) == 0.25
    assert backend.retry_after_s({"Retry-After": "soon"}) is None
    assert backend.retry_after_s({}) is None


def test_a_server_that_wants_too_much_patience_fails_the_clip(server: ChatServer, ask: Ask) -> None:
    server.acts["clip-a"] = ["status:429:86400"]
    (found,) = ask("clip-a")
    assert kind(found) == "endpoint"
    assert len(server.received) == 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_every_request_would_meet_ends_the_run(
    server: ChatServer, ask: Ask, code: int
) -> None:
    server.acts["clip-a"] = [f"status:{code}"]
    with pytest.raises(ModelError, match=f"answers {code}"):
        ask("clip-a")
    server.acts["clip-b"] = ["coded:429:insufficient_quota"]
    with pytest.raises(ModelError, match="no quota left"):
        ask("clip-b")


def test_a_redirect_is_not_followed(server: ChatServer, ask: Ask) -> None:
    server.acts["clip-a"] = ["redirect"]
    with pytest.raises(ModelError, match="answers 302"):
        ask("clip-a")


def test_requests_in_flight_are_bounded(server: ChatServer, ask: Ask) -> None:
    ask(*(f"clip-{number}" for number in range(12)), in_flight=3)
    assert max(found.in_flight for found in server.received) == 3
    server.received.clear()
    ask(*(f"clip-x{number}" for number in range(6)), in_flight=4, seat=Seat(actors=4))
    assert max(found.in_flight for found in server.received) == 1


def test_rates_are_kept_to_and_shared_by_actors(server: ChatServer, ask: Ask) -> None:
    ask(*(f"clip-{number}" for number in range(6)), requests_per_min=240, seat=Seat(actors=4))
    times = sorted(found.at_s for found in server.received)
    # one a second for this actor after a burst of 5
    assert times[-1] - times[0] >= 0.8
    server.received.clear()
    ask(*(f"clip-x{number}" for number in range(3)), tokens_per_min=120_000)
    # a request may take some 4,600 tokens; a burst holds 10,000, 2,000 come a second
    assert max(found.at_s for found in server.received) - server.received[0].at_s >= 1.0


def test_the_key_goes_into_one_header_and_nowhere_else(
    server: ChatServer, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    server.acts["clip-a"] = ["coded:400:odd"]
    server.acts["clip-b"] = ["coded:401:invalid_api_key"]
    with caplog.at_level("DEBUG"):
        (found,) = ask("clip-a", key_env="MY_KEY")
        with pytest.raises(ModelError) as caught:
            ask("clip-b", key_env="MY_KEY")
    assert server.received[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "(key)" in str(found)
    assert "sk-very-secret" not in f"{found}{caught.value}{caplog.text}"
    assert "sk-very-secret" not in str(server.received[0].body)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        ask("clip-a", key_env="MY_KEY")


@pytest.mark.parametrize(
    ("tag", "send_gated", "url", "kept"),
    [
        (None, False, "https://api.example.org/v1", True),
        ("", False, "https://api.example.org/v1", True),
        ("gated:MER", False, "https://api.example.org/v1", True),
        ("CC0-1.0", False, "https://api.example.org/v1", False),
        ("gated:MER", True, "https://api.example.org/v1", False),
        ("gated:MER", False, "http://127.0.0.1:9/v1", False),
        ("gated:MER", False, "http://localhost.example.org/v1", True),
        ("gated:MER", False, "http://10.0.0.3/v1", True),
    ],
)
def test_gated_clips_do_not_leave_for_another_host(
    monkeypatch: pytest.MonkeyPatch, tag: str | None, send_gated: bool, url: str, kept: bool
) -> None:
    sent: list[bytes] = []

    def posted(_self: OpenAIReasoner, content: bytes, _key: str | None) -> tuple[int, Any, bytes]:
        sent.append(content)
        return 400, {}, b"{}"

    monkeypatch.setattr(OpenAIReasoner, "_posted", posted)
    model = ModelConfig(
        backend="openai",
        model="m",
        send_gated=send_gated,
        options={"base_url": url, "audio": "input_audio"},
    )
    reasoner = OpenAIReasoner(model, Seat())
    (found,) = reasoner.explain([dataclasses.replace(request("clip-a"), licence_tag=tag)])
    reasoner.close()
    assert (kind(found) == "gated", bool(sent)) == (kept, not kept)


def test_a_server_at_another_address_never_sees_a_gated_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real thing: 0.0.0.0 leads here, but it is not loopback, so it counts as foreign."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(clip_in, "0.0.0.0") as server:
        options = {"base_url": server.url, "audio": "input_audio"}
        reasoner = OpenAIReasoner(ModelConfig(backend="openai", model="m", options=options), Seat())
        tags = {"clip-a": "gated:MER", "clip-b": None, "clip-c": "CC0-1.0"}
        found = reasoner.explain(
            [dataclasses.replace(request(name), licence_tag=tag) for name, tag in tags.items()]
        )
        reasoner.close()
        assert [kind(reply) for reply in found] == ["gated", "gated", "stop"]
        assert [got.clip for got in server.received] == ["clip-c"]


PRICE = {"price": {"input_usd": 2.0, "output_usd": 10.0, "request_usd": 0.001}}


def test_answers_are_priced_by_the_table(server: ChatServer, ask: Ask) -> None:
    server.acts["clip-b"] = ["no_usage"]
    known, guessed = ask("clip-a", "clip-b", model=PRICE)
    assert isinstance(known, Reply)
    assert isinstance(guessed, Reply)
    assert known.usd == pytest.approx((1000 * 2 + 100 * 10) / 1e6 + 0.001)
    assert guessed.tokens_in is None
    assert guessed.usd is not None
    assert guessed.usd > known.usd  # a guess is on the high side


def test_money_runs_out_before_the_limit_is_passed(server: ChatServer, ask: Ask) -> None:
    each = (1000 * 2 + 100 * 10) / 1e6 + 0.001
    with pytest.raises(BudgetError, match=r"budget\.usd"):
        ask(*(f"clip-{n}" for n in range(40)), model=PRICE, seat=Seat(usd=10 * each), in_flight=4)
    assert 1 <= len(server.received) <= 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": 1}, "unknown option colour"),
        ({"base_url": "ftp://x"}, "no http"),
        ({"base_url": "https://user:pass@x/v1"}, "holds credentials"),
        ({"base_url": "http://vllm.example.org/v1", "key_env": "K"}, "unencrypted"),
        ({"video": "smell"}, "take none, images, video_url"),
        ({"in_flight": 0}, "above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        OpenAIOptions.of(ModelConfig(backend="openai", model="m", options=options))
    with pytest.raises(ConfigError, match=r"models\.<name>\.model"):
        OpenAIOptions.of(ModelConfig(backend="openai"))
