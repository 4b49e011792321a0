"""The routes of the page: each hands its request to the session, or gives a picture."""

import asyncio
import contextlib
import ctypes
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.websockets import WebSocket, WebSocketDisconnect

from longsam.app import log
from longsam.app.pictures import WIDTHS, Pictures, StaleError
from longsam.app.run import ConflictError
from longsam.app.session import Event, Model, NotReadyError, Session

STATIC = Path(__file__).parent / "static"

MAX_QUEUED = 1000
"""Events for a page that does not take them; then it is cut off, and asks for all again."""

MAX_UNSEEN = 20
"""Messages that are kept for the first page."""

MAX_EDITS = 1000

TRIM_SECONDS = 30.0
"""How often free memory is given back to the system."""

ObjectId = Annotated[int | str, Field(union_mode="left_to_right")]
Frame = Annotated[int, InPath(ge=0, lt=1 << 31)]


class Body(BaseModel):
    """What a command is given; anything else in it is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PromptsBody(Body):
    object: ObjectId
    frame: int = Field(ge=0, lt=1 << 31)
    edits: list[dict[str, Any]] = Field(max_length=MAX_EDITS)


class ObjectBody(Body):
    remove: ObjectId | None = None
    rename: ObjectId | None = None
    to: ObjectId | None = None


class TrackBody(Body):
    direction: Literal["forward", "reverse", "both"] = "forward"
    start: int | None = Field(None, ge=0, lt=1 << 31)
    end: int | None = Field(None, ge=0, lt=1 << 31)
    resume: bool = False


class FrameBody(Body):
    frame: int = Field(ge=0, lt=1 << 31)


class OpenBody(Body):
    video: str


class ExportBody(Body):
    to: str
    category: str | None = Field(None, max_length=100)


class App:
    """What the routes share: the session, the pictures, and the pages that watch.

    Args:
        model: How the predictor is made.
        videos: By the name that the page has for it: the video, and the folder of its project.
        say: Called with "warning" or "error" and a text, if no page is there to show it.
    """

    def __init__(
        self,
        model: Model,
        videos: dict[str, tuple[Path, Path]],
        say: Callable[[str, str], object],
    ):
        self.videos = videos
        self._say = say
        self.session = Session(model, self._event)
        self.pictures: Pictures | None = None
        self.controlling: str | None = None
        self._pages: dict[str, asyncio.Queue[Event | None]] = {}
        self._unseen: deque[Event] = deque(maxlen=MAX_UNSEEN)
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start with the server, and end with it."""
        self._loop = asyncio.get_running_loop()
        self.session.start()
        trimming = asyncio.create_task(_trim())
        opening = None
        if len(self.videos) == 1:
            opening = asyncio.create_task(self._open_first(next(iter(self.videos))))
        yield
        trimming.cancel()
        if opening is not None:
            opening.cancel()
        for queue in self._pages.values():
            queue.put_nowait(None)
        await asyncio.to_thread(self.session.close)
        if self.pictures is not None:
            await asyncio.to_thread(self.pictures.close)

    async def _open_first(self, name: str) -> None:
        try:
            await self.open(name)
        except Exception as error:
            self._event({"type": "message", "level": "error", "text": f"{error}"})

    async def open(self, name: str) -> None:
        """Open a video and its project."""
        video, folder = self.videos[name]
        before, self.pictures = self.pictures, None
        if before is not None:
            await asyncio.to_thread(before.close)
        self.pictures = await asyncio.to_thread(Pictures, video)
        await self.run(lambda: self.session.open(video, folder))

    async def run(self, command: Callable[[], Any]) -> Any:
        """Run something in the session's thread."""
        return await asyncio.wrap_future(self.session.submit(command))

    def join(self, tab: str) -> "asyncio.Queue[Event | None]":
        """A page that watches from now on; the first one controls."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_QUEUED)
        before = self._pages.pop(tab, None)
        if before is not None:
            before.put_nowait(None)
        self._pages[tab] = queue
        while self._unseen:
            queue.put_nowait(self._unseen.popleft())
        if self.controlling not in self._pages:
            self.controlling = tab
        return queue

    def leave(self, tab: str, queue: "asyncio.Queue[Event | None]") -> None:
        """A page that watches no more."""
        if self._pages.get(tab) is queue:
            del self._pages[tab]

    def take_control(self, tab: str) -> None:
        """Let a page control, and tell all."""
        self.controlling = tab
        self.session.submit(self.session.tell_project)

    def check_controls(self, tab: str) -> None:
        """Refuse commands of a page that only watches.

        Raises:
            ConflictError: Another one controls.
        """
        if self.controlling is not None and tab != self.controlling:
            raise ConflictError("another tab controls; take control first.")

    def event_for(self, event: Event, tab: str) -> Event:
        """An event as one page has it."""
        if event["type"] != "project":
            return event
        videos = sorted(self.videos) if len(self.videos) > 1 else []
        return event | {"control": tab == self.controlling, "videos": videos}

    def _event(self, event: Event) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the server is ending
            self._loop.call_soon_threadsafe(self._spread, event)

    def _spread(self, event: Event) -> None:
        if not self._pages and event["type"] == "message":  # what opening a folder has to say
            self._unseen.append(event)
            self._say(event["level"], event["text"])
        for tab, queue in list(self._pages.items()):
            try:
                queue.put_nowait(self.event_for(event, tab))
            except asyncio.QueueFull:
                del self._pages[tab]


async def _trim() -> None:
    """Give back what is free between the pictures of the cache: it would add up for an hour."""
    with contextlib.suppress(AttributeError, OSError):  # only glibc has it
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            await asyncio.to_thread(trim, 0)


def make_app(app: App) -> FastAPI:
    """The server's application, without `Guard`."""
    api = FastAPI(lifespan=app.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    api.include_router(_routes(app), prefix="/api")
    api.mount("/", StaticFiles(directory=STATIC, html=True))

    def said(status: int) -> Callable[[Request, Exception], JSONResponse]:
        def handler(_: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"error": f"{error}"}, status)

        return handler

    for kind, status in (
        (ConflictError, 409), (StaleError, 409), (NotReadyError, 503), (ValueError, 400),
        (RuntimeError, 500), (OSError, 500),
    ):  # fmt: skip
        api.add_exception_handler(kind, said(status))

    @api.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": f"{error.detail}"}, error.status_code)

    @api.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{where}: {first['msg']}."}, 422)

    return api


def _routes(app: App) -> APIRouter:
    routes, session = APIRouter(), app.session
    Tab = Annotated[str, Header(alias="X-Tab", max_length=64)]  # noqa: N806

    def pictures() -> Pictures:
        if app.pictures is None:
            raise NotReadyError("no video is open.")
        return app.pictures

    def check_frame(frame: int) -> Pictures:
        there = pictures()
        if frame >= there.num_frames:
            raise HTTPException(404, f"the video has frames 0 to {there.num_frames - 1}.")
        return there

    def check_width(width: int) -> None:
        if width not in WIDTHS:
            raise ValueError(f"width is {width}; it must be one of {WIDTHS}.")

    @routes.get("/project")
    async def project(tab: Tab = "") -> Any:
        return app.event_for(session.latest, tab)

    @routes.get("/frame/{frame}.{suffix}")
    async def frame(
        request: Request,
        frame: Frame,
        suffix: Literal["jpg", "png"],
        width: int = 1280,
        seq: int | None = None,
    ) -> Response:
        check_width(width)
        there = check_frame(frame)
        future = there.get(frame, width if suffix == "jpg" else None, is_shown=seq is not None)
        picture = await asyncio.wrap_future(future)
        kind = "image/jpeg" if suffix == "jpg" else "image/png"
        return Response(picture, media_type=kind, headers={"Cache-Control": "private, max-age=600"})

    @routes.get("/keyframe/{frame}.jpg")
    async def keyframe(frame: Frame, width: int = WIDTHS[0]) -> Response:
        """The key frame near a frame; `X-Frame` says which. Without content where none is near."""
        check_width(width)
        found, picture = await asyncio.to_thread(check_frame(frame).keyframe, frame, width)
        headers = {"X-Frame": str(found), "Cache-Control": "no-store"}
        if picture is None:
            return Response(status_code=204, headers=headers)
        return Response(picture, media_type="image/jpeg", headers=headers)

    @routes.get("/masks/{frame}")
    async def masks(frame: Frame) -> Any:
        check_frame(frame)
        return await app.run(lambda: session.masks(frame))

    @routes.get("/timeline/{level}/{tile}")
    async def timeline(
        level: Annotated[int, InPath(ge=0, le=22)], tile: Annotated[int, InPath(ge=0, lt=1 << 23)]
    ) -> Response:
        content = await app.run(lambda: session.tile(level, tile))
        return Response(content, media_type="application/octet-stream")

    @routes.get("/download/{name}")
    async def download(name: str) -> FileResponse:
        path = session.export_path(name)
        if path is None:
            raise HTTPException(404, "there is no such export.")
        return FileResponse(path, filename=f"{path.parent.parent.name}_{name}")

    @routes.post("/control")
    async def control(tab: Tab) -> Any:
        app.take_control(tab)
        return {}

    @routes.post("/open")
    async def open_video(body: OpenBody, tab: Tab) -> Any:
        app.check_controls(tab)
        if body.video not in app.videos:
            raise HTTPException(404, f"there is no video {body.video[:200]!r}.")
        await app.open(body.video)
        return {}

    @routes.post("/prompts")
    async def prompts(body: PromptsBody, tab: Tab) -> Any:
        app.check_controls(tab)
        check_frame(body.frame)
        _check_object(body.object)
        edits = [_edit(edit) for edit in body.edits]
        return await app.run(lambda: session.prompt(body.object, body.frame, edits))

    @routes.post("/object")
    async def change_object(body: ObjectBody, tab: Tab) -> Any:
        app.check_controls(tab)
        obj_id, to = body.rename, body.to
        if body.remove is not None:
            removed = body.remove
            await app.run(lambda: session.do(lambda run: run.remove(removed)))
        elif obj_id is not None and to is not None:
            _check_object(to)
            await app.run(lambda: session.do(lambda run: run.rename(obj_id, to)))
        return {}

    @routes.post("/track")
    async def track(body: TrackBody, tab: Tab) -> Any:
        app.check_controls(tab)
        if body.resume:
            await app.run(lambda: session.do(lambda run: run.resume()))
        else:
            await app.run(
                lambda: session.do(lambda run: run.track(body.direction, body.start, body.end))
            )
        return {}

    for name, command in (
        ("stop", lambda run: run.pause()),
        ("keep", lambda run: run.keep()),
        ("drop", lambda run: run.drop()),
    ):
        _add_command(routes, app, name, command)

    @routes.post("/rest")
    async def rest(body: FrameBody, tab: Tab) -> Any:
        if tab == app.controlling:
            await app.run(lambda: session.rest(body.frame))
        return {}

    @routes.post("/review")
    async def review(tab: Tab) -> Any:
        app.check_controls(tab)
        await app.run(session.find_spans)
        return {}

    @routes.post("/export")
    async def export(body: ExportBody, tab: Tab) -> Any:
        app.check_controls(tab)
        await app.run(lambda: session.export(body.to, body.category))
        return {}

    @routes.websocket("/events")
    async def events(socket: WebSocket, tab: Annotated[str, Query(max_length=64)]) -> None:
        await socket.accept()
        queue = app.join(tab)
        await socket.send_json(app.event_for(session.latest, tab))
        sending = asyncio.create_task(_send(socket, queue))
        try:
            while True:
                await socket.receive_text()  # nothing is expected; it ends when the page goes
        except WebSocketDisconnect:
            pass
        finally:
            app.leave(tab, queue)
            sending.cancel()

    return routes


def _add_command(routes: APIRouter, app: App, name: str, command: Callable[[Any], object]) -> None:
    async def run(tab: Annotated[str, Header(alias="X-Tab", max_length=64)]) -> Any:
        app.check_controls(tab)
        await app.run(lambda: app.session.do(command))
        return {}

    routes.add_api_route(f"/{name}", run, methods=["POST"])


async def _send(socket: WebSocket, queue: "asyncio.Queue[Event | None]") -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while (event := await queue.get()) is not None:
            await socket.send_json(event)
        await socket.close()


def _check_object(obj_id: Any) -> None:
    if not log.is_obj_id(obj_id):
        raise ValueError(
            f"{str(obj_id)[:100]!r} cannot be an object's id; give a number from 0, or a name of "
            "at most 100 letters."
        )


def _edit(edit: dict[str, Any]) -> dict[str, Any]:
    if not log.is_edit(edit):
        raise ValueError(
            f"{str(edit)[:200]} is no edit; it is a point (kind, x, y, label 0 or 1), a box (kind, "
            "box of four numbers) or a mask (kind, counts)."
        )
    return edit


def project_folder(video: Path) -> Path:
    """Where the project of a video lies if nothing else is said: beside it."""
    name = re.sub(r"\.\w{1,5}$", "", video.name) if video.is_file() else video.name
    return video.parent / f"{name}_masks"
