"""The review page's server: who may ask for what, and media by ranges.

Everybody has a link of their own, `/r/TOKEN/`: an annotator's shows and takes their judgements
only, the lead's shows progress and agreement and merges. There are no cookies, so that a page of
somebody else cannot act in anybody's name, and a path is never taken from a request: media are
asked for by the number of a clip. Nothing here is fetched from elsewhere, and nothing is uploaded.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import mimetypes
import re
import secrets
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from emer_ray import inert, storage
from emer_ray.desk import log
from emer_ray.errors import ConfigError, EmerError, StorageError
from emer_ray.rounds import items, merging, sheets
from emer_ray.rounds.items import Given, Mark

PIECE: Final = 2**20
"""Bytes of media read and sent at a time."""

TEXT: Final = 4_000
"""Letters of one judgement."""

_ADDED: Final = re.compile(rf"(?:{'|'.join(items.ADDABLE)})\.\+[1-9]\d{{0,2}}")
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

PAGES: Final = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}

LEAD: Final = "lead"

PLAYS: Final = ("video/", "audio/")

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Desk:
    """A round that is being judged."""

    about: Mapping[str, Any]
    given: Sequence[Given]
    manifest: Mapping[str, Mapping[str, Any]]
    """Clip -> its row of the manifest: media, window, crop."""
    words: Sequence[str]
    """Emotion words that the page proposes."""
    logs: Mapping[str, log.Log]
    tokens: Mapping[str, str]
    """Token -> annotator, or `LEAD`."""
    merge: Callable[[], dict[str, Any]]
    """Merges the round as `emer review merge` does."""
    marks: dict[str, dict[tuple[str, str], Mark]] = field(default_factory=dict)
    """Annotator -> (clip, item) -> the last judgement."""

    def __post_init__(self) -> None:
        self.clips: dict[str, list[Given]] = {}
        for each in self.given:
            self.clips.setdefault(each.clip_id, []).append(each)
        self.locks = {name: asyncio.Lock() for name in self.logs}
        for name, mine in self.logs.items():
            read = merging.checked(f"{name}.jsonl", mine.read(), self.given, self.about["round"])
            self.marks[name] = {(mark.clip_id, mark.item): mark for mark in read}

    def of(self, annotator: str) -> list[str]:
        """List an annotator's clips."""
        return [clip_id for clip_id, mine in self.clips.items() if annotator in mine[0].annotators]

    def progress(self, annotator: str, clip_id: str) -> dict[str, Any]:
        """Say how far an annotator is with a clip; one without items is done when looked at."""
        marks = self.marks[annotator]
        asked = [each.item for each in self.clips[clip_id] if each.item != items.CLIP]
        found = {item: marks.get((clip_id, item)) for item in (*asked, items.CLIP)}
        judged = sum(bool(mark and mark.verdict) for item, mark in found.items() if item in asked)
        clip = found[items.CLIP]
        looked = clip is not None and clip.verdict is not None
        return {
            "items": len(asked),
            "judged": judged,
            "done": judged == len(asked) if asked else looked,
            "flag": bool(clip and clip.flag),
        }


def secret(path: Path) -> bytes:
    """Read the key of this user's links, made at first: links outlive a restart of the server."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32), encoding="ascii")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; the key of the links is kept there, set HOME to a folder "
            f"that can be written"
        ) from None


def token(key: bytes, place: str, who: str) -> str:
    """Derive somebody's token in a round."""
    named = f"{place}\0{who}".encode()
    return hmac.new(key, named, hashlib.sha256).hexdigest()[:40]


def application(desk: Desk) -> web.Application:
    """Put the routes together."""
    app = web.Application(middlewares=[_guarded], client_max_size=64 * 1024)
    app[DESK] = desk
    app.add_routes(
        [
            web.get("/r/{token}/{name:(?:page\\.js|page\\.css)?}", _page),
            web.get("/r/{token}/api/round", _round),
            web.get("/r/{token}/api/clips/{number:\\d{1,9}}", _clip),
            web.post("/r/{token}/api/mark", _mark),
            web.get("/r/{token}/api/sheet.xlsx", _sheet),
            web.get("/r/{token}/media/{number:\\d{1,9}}/{which:video|audio}", _media),
            web.post("/r/{token}/api/merge", _merge),
        ]
    )
    return app


def serve(desk: Desk, host: str, port: int, on_ready: Callable[[dict[str, Any]], None]) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` is told the address of everybody's link."""

    async def run() -> None:
        runner = web.AppRunner(application(desk), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            try:
                await site.start()
            except OSError as error:
                raise ConfigError(
                    f"{host}:{port}: {error.strerror}; give another --port, 0 takes a free one"
                ) from None
            taken = runner.addresses[0][1]
            named = f"[{host}]" if ":" in host else host
            links = {who: f"http://{named}:{taken}/r/{key}/" for key, who in desk.tokens.items()}
            on_ready(links)
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()
        finally:
            await runner.cleanup()

    asyncio.run(run())


DESK: Final = web.AppKey("desk", Desk)
WHO: Final = web.RequestKey("who", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks; a wrong token and a wrong path look the same."""
    try:
        given = request.match_info.get("token", "").encode(errors="replace")
        desk = request.app[DESK]
        keys = ((key.encode(), name) for key, name in desk.tokens.items())
        who = next((name for key, name in keys if hmac.compare_digest(key, given)), None)
        if who is None:
            raise web.HTTPNotFound(text="not found")
        request[WHO] = who
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(status=error.status, text=error.text or error.reason)
    except EmerError as error:
        response = web.Response(status=400, text=str(error))
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


def _annotator(request: web.Request) -> str:
    if request[WHO] == LEAD:
        raise web.HTTPForbidden(text="the lead does not judge; open an annotator's link")
    return request[WHO]


async def _page(request: web.Request) -> web.Response:
    name, kind = PAGES[request.match_info["name"]]
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=kind, charset="utf-8")


async def _round(request: web.Request) -> web.Response:
    desk, who = request.app[DESK], request[WHO]
    found: dict[str, Any] = {
        "who": who,
        "lead": who == LEAD,
        "round": desk.about["round"],
        "run": desk.about["run"],
    }
    if who == LEAD:
        found["progress"] = [_summary(desk, name) for name in desk.logs]
    else:
        found["words"] = desk.words
        found["clips"] = [
            {"clip_id": clip_id, **desk.progress(who, clip_id)} for clip_id in desk.of(who)
        ]
    return web.json_response(found)


def _summary(desk: Desk, annotator: str) -> dict[str, Any]:
    clips = [desk.progress(annotator, clip_id) for clip_id in desk.of(annotator)]
    return {
        "annotator": annotator,
        "clips": len(clips),
        "done": sum(clip["done"] for clip in clips),
        "items": sum(clip["items"] for clip in clips),
        "judged": sum(clip["judged"] for clip in clips),
        "flagged": sum(clip["flag"] for clip in clips),
    }


def _clip_id(request: web.Request) -> str:
    """Find the clip by its number in the annotator's list: whose it is not cannot be asked for."""
    mine = request.app[DESK].of(_annotator(request))
    number = int(request.match_info["number"])
    if number >= len(mine):
        raise web.HTTPNotFound(text=f"there are {len(mine)} clips")
    return mine[number]


async def _clip(request: web.Request) -> web.Response:
    desk, who, clip_id = request.app[DESK], _annotator(request), _clip_id(request)
    listed = desk.manifest.get(clip_id, {})
    given = {each.item: each for each in desk.clips[clip_id]}
    marks = {item: found for (clip, item), found in desk.marks[who].items() if clip == clip_id}
    shown = [
        {
            "item": item,
            "kind": items.kind(item),
            "given": None if item not in given else _plain(given[item].given),
            "evidence": list((given[item].evidence or ()) if item in given else ()),
            **_shown(marks.get(item)),
        }
        for item in sorted(given.keys() | marks.keys(), key=items.order)
    ]
    media = {which: _kind(listed.get(f"{which}_uri")) for which in ("video", "audio")}
    return web.json_response(
        {
            "clip_id": clip_id,
            "items": shown,
            "media": {which: kind for which, kind in media.items() if kind},
            "images": listed.get("fps") is not None,
            "start_s": listed.get("start_s"),
            "end_s": listed.get("end_s"),
            "crop": listed.get("crop"),
            "composite": bool(listed.get("composite")),
            "look_at": given[items.CLIP].look_at,
        }
    )


def _plain(text: str | None) -> str | None:
    """Show what was given without what would turn its direction; it is stored as it is."""
    return None if text is None else inert.plain(text)


def version(mark: Mark | None) -> str:
    """Name what stands at an item, so that a window can say what it has seen; empty = nothing."""
    if mark is None or not (mark.verdict or mark.note or mark.flag):
        return ""
    said = json.dumps([mark.verdict, mark.text, mark.note, bool(mark.flag)])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _shown(mark: Mark | None) -> dict[str, Any]:
    return {
        "version": version(mark),
        "verdict": mark and mark.verdict,
        "text": mark and mark.text,
        "note": mark and mark.note,
        "flag": bool(mark and mark.flag),
    }


async def _mark(request: web.Request) -> web.Response:
    """Take a judgement: it is on the disk before the answer says so.

    `seen` is the version that the sender judged; where another window was faster, the answer is 409
    with what stands there now, and nothing is changed.
    """
    desk, who = request.app[DESK], _annotator(request)
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send JSON")
    try:
        told = json.loads(await request.text())
        mark, seen = _judged(desk, who, told), str(told["seen"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise web.HTTPBadRequest(text=f"no judgement: {error}") from None
    place = (mark.clip_id, mark.item)
    async with desk.locks[who]:
        current = desk.marks[who].get(place)
        said_before = version(current) == version(mark)  # and the answer was lost
        if not said_before and seen != version(current):
            return web.json_response(_shown(current), status=409)
        if not said_before:
            await asyncio.to_thread(desk.logs[who].append, mark)
            desk.marks[who][place] = mark
    return web.json_response({**_shown(mark), "progress": desk.progress(who, mark.clip_id)})


def _judged(desk: Desk, who: str, told: Mapping[str, Any]) -> Mark:
    """Check what a page sent; raises ValueError in words."""
    clip_id, item = str(told["clip_id"]), str(told["item"])
    mine = desk.clips.get(clip_id)
    if mine is None or who not in mine[0].annotators:
        raise ValueError("no such clip is yours")
    given = next((each for each in mine if each.item == item), None)
    if given is None and not _ADDED.fullmatch(item):
        raise ValueError(f"no item {item!r}")
    verdict, text = told.get("verdict"), _said(told.get("text"))
    if verdict is not None and verdict not in items.VERDICTS:
        raise ValueError(f"no verdict {verdict!r}")
    if verdict in ("edit", "add") and not text:
        raise ValueError(f"{verdict} needs words")
    if verdict is not None and (verdict == "add") != (given is None):
        raise ValueError(f"{verdict} does not fit {item}")
    return Mark(
        clip_id=clip_id,
        item=item,
        given=None if given is None else given.given,
        verdict=verdict,
        text=text if verdict in ("edit", "add") else None,
        note=_said(told.get("note")),
        flag=True if told.get("flag") else None,
        look_at=None,
        annotator=who,
        round=desk.about["round"],
    )


def _said(text: Any) -> str | None:
    if text is None:
        return None
    plain = inert.plain(str(text))
    if len(plain) > TEXT:
        raise ValueError(f"{len(plain)} letters; at most {TEXT}")
    return plain or None


async def _sheet(request: web.Request) -> web.Response:
    """Give an annotator's judgements as the spreadsheet that `emer review export` would make."""
    desk, who = request.app[DESK], _annotator(request)
    marks = desk.marks[who]
    blank = sheets.blank(desk.given, who, desk.about["round"])
    filled = [
        mark if (found := marks.get((mark.clip_id, mark.item))) is None else _beside(mark, found)
        for mark in blank
    ]
    added = [mark for mark in marks.values() if items.is_added(mark.item) and mark.verdict]
    data = await asyncio.to_thread(sheets.write, [*filled, *added], "xlsx")
    return web.Response(
        body=data,
        content_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        headers={"Content-Disposition": f'attachment; filename="{who}.xlsx"'},
    )


def _beside(blank: Mark, mark: Mark) -> Mark:
    return Mark(**{**asdict(mark), "look_at": blank.look_at})


async def _merge(request: web.Request) -> web.Response:
    if request[WHO] != LEAD:
        raise web.HTTPForbidden(text="only the lead's link merges")
    desk = request.app[DESK]
    return web.json_response(await asyncio.to_thread(desk.merge))


def _kind(uri: str | None) -> str | None:
    """Name the media type of a file by its ending; what is no media is not served."""
    if uri is None:
        return None
    found = mimetypes.guess_type(uri.partition("?")[0])[0] or ""
    return found if found.startswith(PLAYS) else None


async def _media(request: web.Request) -> web.StreamResponse:
    """Serve a clip's media, or the range that was asked for, piece by piece."""
    listed = request.app[DESK].manifest.get(_clip_id(request), {})
    uri = listed.get(f"{request.match_info['which']}_uri")
    kind = _kind(uri)
    if uri is None or kind is None or uri.startswith(("http://", "https://")):
        raise web.HTTPNotFound(text="no such media")
    try:
        size = await asyncio.to_thread(storage.size, uri)
    except StorageError as error:
        logger.warning("%s", error)
        raise web.HTTPNotFound(text="the media are not there") from None
    start, end = _span(request.headers.get("Range"), size)
    partial = "Range" in request.headers
    headers = {**HEADERS, "Accept-Ranges": "bytes", "Content-Type": kind}
    headers["Content-Length"] = str(end - start)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    response = web.StreamResponse(status=206 if partial else 200, headers=headers)
    await response.prepare(request)
    for at in range(start, end, PIECE):
        data = await asyncio.to_thread(storage.read_range, uri, at, min(at + PIECE, end))
        await response.write(data)
    await response.write_eof()
    return response


def _span(asked: str | None, size: int) -> tuple[int, int]:
    """Read a Range header of one range; raises 416 for one that lies outside."""
    if asked is None:
        return 0, size
    match = _RANGE.fullmatch(asked.strip())
    first, last = match.groups() if match else ("", "")
    if not first and not last:
        raise web.HTTPRequestRangeNotSatisfiable(text=f"bytes */{size}")
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    else:
        start, end = max(0, size - int(last)), size
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(text=f"bytes */{size}")
    return start, end
