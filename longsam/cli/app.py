"""`longsam app`: the page in the browser."""

import argparse
import socket
import sys
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

from longsam import LongVideoPredictor
from longsam.cli import model
from longsam.cli.record import Record
from longsam.testing import SyntheticVideo

EPILOG = """\
examples:
  longsam app bees.mp4 --checkpoint sam2.1_hiera_large.pt
  longsam app --demo

For a remote server, run the printed command (ssh -L ...) on your own computer, and open the address
there.
"""

PORT = 8264
SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".wmv"}
DEMO_FRAMES = 600


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "app",
        help="open a page in the browser: see, prompt, track and correct",
        description="Serve a page to this machine's browser, where you prompt, track and correct\n"
        "a video by eye. Everything is kept in --out, which `longsam track --resume`,\n"
        "`longsam review` and Python read too. Stopped or killed, it continues where it stopped.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "video", nargs="?", type=Path,
        help="a video file, a folder of images, or a folder of videos (none with --demo)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="where masks and prompts are kept; several videos get a folder each in it (beside the "
        "video, NAME_masks)",
    )  # fmt: skip
    parser.add_argument(
        "--demo", action="store_true",
        help="make a video, and track it with the testing model (off)",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"the port ({PORT}, or a free one)")
    model.add_flags(parser)
    parser.add_argument("--quiet", action="store_true", help="only print the address (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        import uvicorn

        from longsam.app.guard import Guard, new_token
        from longsam.app.server import App, make_app
        from longsam.app.session import Model
    except ImportError as error:
        raise ValueError(
            f"the page needs {error.name}, which is not installed: pip install 'longsam[app]'."
        ) from error
    if options.demo:
        _prepare_demo(options)
    if options.video is None:
        raise ValueError("give a video, a folder of videos, or --demo.")
    model.check_flags(options)
    videos = _videos(options)

    def load() -> LongVideoPredictor:
        return model.load(options)

    def record(predictor: LongVideoPredictor, video: str) -> Record:
        return _record(options, predictor, video)

    def computing(predictor: LongVideoPredictor) -> AbstractContextManager[object]:
        return model.computing_in(model.dtype_of(options, predictor.device), predictor.device)

    name = "the testing model" if options.testing_model else options.checkpoint.name
    app = App(
        Model(load, computing, record, name),
        videos,
        lambda level, text: print(f"longsam: {level}: {text}", file=sys.stderr, flush=True),
    )
    token = new_token()
    with closing(_listen(options.host, options.port)) as listening:
        port = listening.getsockname()[1]
        host = "127.0.0.1" if options.host in ("127.0.0.1", "localhost") else options.host
        shown = f"[{host}]" if ":" in host else host
        is_local = host in ("127.0.0.1", "::1")
        print(f"http://{shown}:{port}/?token={token}", flush=True)
        if not options.quiet:
            if is_local:
                print(f"From another computer: ssh -L {port}:127.0.0.1:{port} {_me()}")
            print("Ctrl-C saves and stops.", flush=True)
        if not is_local:
            print(
                f"longsam: warning: others can reach {host}, and what they send is not "
                "encrypted. Listen on 127.0.0.1 and use ssh -L instead.",
                file=sys.stderr,
            )
        guarded = Guard(make_app(app), token, [] if is_local else [shown])
        config = uvicorn.Config(
            guarded, log_level="warning", access_log=False, ws_max_size=1 << 16, lifespan="on",
            timeout_graceful_shutdown=3,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _prepare_demo(options: argparse.Namespace) -> None:
    """The video, beside its masks."""
    if options.video is not None:
        raise ValueError("--demo makes its own video; leave out VIDEO.")
    folder = options.out or Path("longsam_demo")
    folder.mkdir(parents=True, exist_ok=True)
    options.video, options.out = folder / "demo.mp4", folder / "masks"
    options.testing_model = options.checkpoint is None
    if not options.video.exists():
        with model.said("making the video", is_quiet=options.quiet):
            partial = folder / "demo.partial.mp4"
            SyntheticVideo(0, DEMO_FRAMES, (360, 640)).write(partial)
            partial.replace(options.video)


def _videos(options: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """The videos, by their names on the page, and the folders of their projects."""
    from longsam.app.server import project_folder

    given: Path = options.video
    if not given.exists():
        raise ValueError(f"there is no video at {given}.")
    several = sorted(
        path for path in (given.iterdir() if given.is_dir() else ())
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )  # fmt: skip
    if not several:
        return {given.name: (given.absolute(), (options.out or project_folder(given)).absolute())}
    videos = {}
    for path in several:
        folder = project_folder(path)
        if options.out is not None:
            folder = options.out / folder.name
        videos[path.name] = (path.absolute(), folder.absolute())
    return videos


def _record(options: argparse.Namespace, predictor: LongVideoPredictor, video: str) -> Record:
    """A new project's model settings."""
    return Record(
        video=video,
        prompts=[],
        frames=None,
        direction="forward",
        formats=["rle"],
        dtype=model.dtype_of(options, predictor.device),
        device=str(predictor.device),
        batch_objects=False,
        vos_optimized=False,
        memory_window=None,
        model=predictor.name,
        checkpoint=None if options.testing_model else str(options.checkpoint.absolute()),
        config=options.config,
    )


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket on the given port, or on a free one.

    Raises:
        ValueError: The port is taken, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if port is None:
        with suppress(OSError):
            listening.bind((host, PORT))
            listening.listen()
            return listening
        port = 0
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise ValueError(f"cannot listen on {host}, port {port}: {error}.") from error
    return listening


def _me() -> str:
    return f"{Path.home().name}@{socket.gethostname()}"
