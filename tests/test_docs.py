"""README and docs: their Python runs, their figures are the JSON's, their pages are found.

The command lines on them are run by tests/test_cli_examples.py, the README's Python with a model of
the released shapes by tests/test_examples.py, and the site is built, strictly, by .ci/run.
"""

import ast
import json
import re
import shutil
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from davis_folders import write_davis
from PIL import Image

import longsam
from longsam import LongVideoPredictor
from longsam.masks import MaskFolder
from longsam.masks.exports import FORMATS
from longsam.masks.lines import Header, parse_frame
from longsam.testing import CHECKPOINT, SyntheticVideo, load_predictor

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import tables  # noqa: E402

README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *DOCS.rglob("*.md"),
]
PACKAGE = Path(longsam.__file__).parent  # elsewhere than ROOT where longsam is installed
CODE = [*PACKAGE.rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
NOTEBOOK = ROOT / "examples" / "long_video.ipynb"
FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [body for _, name, body in FENCE.findall(text) if name == language]


# Python -----------------------------------------------------------------------------------------

PRINTED = {
    "start.md": [*"01234", "after the correction: 4"],
    "guides/videos.md": ["[0, 2, 4]"],
    "guides/masks.md": [*(f"{i} ['bee'] (1, 480, 640) bool" for i in range(5)), "5 (480, 640)"],
    "guides/live.md": ["8 0 0"],
    "guides/resume.md": [f"resumed: {i}" for i in (2, 3, 4)],
    "guides/corrections.md": [f"corrected: {i}" for i in (3, 4)],
    "guides/memory-banks.md": ["known: ['queen']"] * 2,
    "guides/testing.md": ["mean IoU 0.9"],
    "guides/evaluate.md": ["none bear 1 9", "none bear 2 9", "samurai_0.5 bear 1 9"],
}
"""How the lines begin that a page prints."""


@pytest.fixture(scope="module")
def predictor() -> LongVideoPredictor:
    return load_predictor()


@pytest.fixture
def run(
    predictor: LongVideoPredictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Run the blocks of a page one after the other; the videos that they name are short."""

    def run(page: str) -> tuple[dict[str, object], list[str]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(longsam, "build_long_video_predictor", lambda *_: predictor)
        SyntheticVideo(2, 5, (300, 400)).write(tmp_path / "bees.mp4")
        # An object of it is where the pages' boxes are.
        SyntheticVideo(41, 5, (480, 640)).write(tmp_path / "two_hours.mp4")
        shutil.copy(tmp_path / "two_hours.mp4", tmp_path / "video.mp4")
        write_davis(tmp_path / "DAVIS", "bear", SyntheticVideo(2, 5, (96, 128)))
        names: dict[str, object] = {"predictor": predictor}
        for block in blocks(PAGES[page], "python"):
            exec(compile(block, page, "exec"), names)
        return names, capsys.readouterr().out.splitlines()

    return run


WITH_PYTHON = {page for page in PAGES if "```python" in PAGES[page]}
BELOW = {"guides/detectors.md", "guides/scores.md", "guides/everything.md"}


@pytest.mark.parametrize("page", sorted(WITH_PYTHON - BELOW))
def test_python(page: str, run) -> None:
    _, printed = run(page)
    for line, beginning in zip(printed, PRINTED.get(page, []), strict=False):
        assert line.startswith(beginning)
    assert len(printed) >= len(PRINTED.get(page, []))


def test_detectors(run) -> None:
    _, printed = run("guides/detectors.md")
    assert printed[:2] == [f"found: {i} [] []" for i in (0, 1)]
    assert printed[2:5] == [f"found: {i} [1] ['bee']" for i in (2, 3, 4)]
    assert printed[-1] == "found again: 4"


def test_scores(run, tmp_path: Path) -> None:
    names, _ = run("guides/scores.md")
    line = names["line"]
    assert line.obj_ids == ["bee"]  # type: ignore[attr-defined]
    assert line.scores != [None]  # type: ignore[attr-defined]
    assert line.time == pytest.approx(4 / 30, abs=1e-6)  # type: ignore[attr-defined]
    (shown,) = blocks(PAGES["guides/scores.md"], "json")
    written = (tmp_path / "scored" / "frames.jsonl").read_text().splitlines()[2]
    assert json.loads(shown).keys() == json.loads(written).keys()
    assert parse_frame(shown.strip().encode(), Header(("rle",), (240, 320))).time == 0.4


def test_everything(run, tmp_path: Path) -> None:
    names, _ = run("guides/everything.md")
    assert names["frame_idx"] == 4
    assert MaskFolder(tmp_path / "found").frames == list(range(5))


@pytest.mark.parametrize("page", ["README.md", *sorted(PAGES)])
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    text = README if page == "README.md" else PAGES[page]
    for found in FENCE.finditer(text):
        language, body = found[2], found[3]
        if language == "python":
            continue
        if language == "json":
            json.loads(body)
            continue
        lines = body.replace("\\\n", " ").splitlines()
        if page == "README.md" and body.startswith("python3 -m venv"):
            continue  # by .ci/run and tests/test_examples.py
        is_run = language == "sh" and all(line.strip().startswith("longsam ") for line in lines)
        before = text[: found.start()].rstrip().rsplit("\n", 1)[-1]
        assert is_run or re.fullmatch(r"<!-- not run: .+ -->", before), body


# Figures ----------------------------------------------------------------------------------------

STATED = {
    f"{1024 * 1024 * 3 / 2**20:.0f} MiB": "a uint8 frame at 1024 x 1024",
    f"{1024 * 1024 * 4 / 2**20:.0f} MiB": "a float32 mask at 1024 x 1024",
    f"{64**3 * 2 / 2**10:.0f} KiB": "memory features, bfloat16",
    f"{64**3 * 2 / 2**20:.1f} MiB": "the same",
    "95 %": "the level of a bootstrap's bounds",
    "8 MiB": "a snapshot with a memory policy: features of all frames within reach",
    f"{256 * 256 * 4 / 2**10:.0f} KiB": "mask logits, float32",
    "16 MiB": "a frame's features, float32; tests/benchmarks/together.py",
    "1 KiB": "an object pointer of 256 float32",
    f"{(64**3 * 2 + 256 * 256 * 4) / 2**20:.2f} MiB": "a frame of an object",
    f"{31 * (64**3 * 2 + 256 * 256 * 4) / 2**20:.0f} MiB": "the default window",
    "112 MiB": "upstream's cache of a frame; tests/test_bounded.py",
    f"{tables.numbers('saving')['cost']['save_mib']:.0f} MiB": "a save",
    f"{3840 * 2160 * 4 / 1e6:.0f} MB": "float32 logits at 4K",
    f"{3840 * 2160 / 1e6:.0f} MB": "a bool mask at 4K, and the disk of tests/test_faults.py",
    f"{CHECKPOINT.stat().st_size / 1e6:.0f} MB": "the testing model",
    "6 GB": "torch with CUDA",
    "2 GB": "snapshots of longsam track",
    "0.12 GB": "masks that tests/benchmarks/peers.py keeps",
    "1 MiB": "what tests/test_faults.py leaves",
    "30 s": "limit of tests/benchmarks/fuzz.py",
    "5 s": "LiveVideo.close",
    "200 s": "length of a benchmark's video",
    "30 ms": "a benchmark's consumer",
    "90s": "an option",
    "5 %": "a benchmark's false boxes",
    "0.1 %": "an option's default",
    "50 %": "an option's default",
}
"""Figures with a unit that nothing measured: computed from shapes, chosen, or defaults."""

FIGURE = re.compile(r"(?<![\w.])\d[\d,.]* ?(?:[kMG]i?B|ms|s|%|frames/s|GFLOP(?:/s)?)(?![\w/])")


@pytest.mark.parametrize("page", ["README.md", *sorted(PAGES)])
def test_measured_figures_are_those_of_the_json(page: str) -> None:
    text = README if page == "README.md" else PAGES[page]
    assert tables.filled(text) == text, "run python tests/benchmarks/tables.py"
    assert text.count("<!-- measured:") == text.count("<!-- /measured -->")
    typed = FENCE.sub("", tables.MARKED.sub("", text))
    assert not set(FIGURE.findall(typed)) - set(STATED), "of no JSON; see tables.py"


def test_the_testing_models_figures_are_those_of_the_json() -> None:
    text = (PACKAGE / "testing" / "README.md").read_text()
    assert tables.filled(text) == text, "run python tests/benchmarks/tables.py"


def test_files_that_pages_name_are_there() -> None:
    named = re.compile(r"(?:tests|examples|longsam)/[\w/]+\.(?:py|json|md|ipynb)\b")
    for page, text in {"README.md": README, **PAGES}.items():
        for name in named.findall(text):
            root = PACKAGE.parent if name.startswith("longsam/") else ROOT
            assert (root / name).exists(), f"{page}: {name}"


def test_pictures() -> None:
    for name in ("length.png", "policies.png"):
        assert (DOCS / "pictures" / name).read_bytes() == (tables.RESULTS / name).read_bytes()
    moving = DOCS / "pictures" / "overview.webp"
    assert moving.stat().st_size < 3e6
    with Image.open(moving) as picture:
        assert picture.n_frames > 10  # type: ignore[attr-defined]


def test_the_exports_are_those_of_the_code() -> None:
    for name, what in FORMATS.items():
        assert f"| `{name}` | {what} |" in PAGES["guides/exports.md"]


# English ----------------------------------------------------------------------------------------

TURNS = (
    "anew", "behind frame", "come by", "comes by", "goes on", "going on", "go on", "hardly meant",
    "in vain", "is sought", "let go", "mended", "of one's own", "so often", "sought again",
    "turns round", "whoever",
)  # fmt: skip
"""Nobody says so. One of these is a word for word translation."""


def _name(path: Path) -> str:
    root = PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT
    return path.relative_to(root).as_posix()


def said(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of prose: of Python its comments and strings, of a notebook its cells, else no code."""
    if path == NOTEBOOK:
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            yield number, " ".join(cell["source"])
        return
    if path.suffix != ".py":
        text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), path.read_text())
        yield from enumerate(text.splitlines(), 1)
        return
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield token.start[0], " ".join(token.string.split())
            elif token.type == getattr(tokenize, "FSTRING_MIDDLE", None):
                yield token.start[0], token.string


@pytest.mark.parametrize("path", [*WRITTEN, *CODE, NOTEBOOK], ids=_name)
def test_stilted_turns(path: Path) -> None:
    turns = re.compile(rf"\b({'|'.join(TURNS)})\b", re.IGNORECASE)
    found = [f"{line}: {turns.findall(text)}" for line, text in said(path) if turns.search(text)]
    assert not found


def test_the_notebook_has_its_pictures() -> None:
    """Saved by tests/saved_notebook.py; tests/test_examples.py runs it and compares."""
    assert NOTEBOOK.stat().st_size < 600_000
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 7
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 900
    prose = tables.MARKED.sub("", FENCE.sub("", README))
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    parts = re.split(r"\n\s*\n|\n(?=[-|#]|\d\. )|\s\|\s", prose)
    sentences = [one for part in parts for one in re.split(r"(?<=[.!?:])\s+", part)]
    longest = max(sentences, key=lambda sentence: len(sentence.split()))
    assert len(longest.split()) <= 30, longest


# The site ---------------------------------------------------------------------------------------

TASKS = {
    "install beside the official SAM 2 and run existing code": ("start.md", "coming-from.md"),
    "track an object through a long file and hand the masks to CVAT": (
        "guides/command-line.md",
        "guides/exports.md",
    ),
    "resume a run after the machine was switched off": ("guides/resume.md",),
    "correct a mask on an early frame by eye, in the browser, on a remote server": (
        "guides/page.md",
        "guides/corrections.md",
    ),
    "track what a detector finds on a network camera": ("guides/detectors.md", "guides/live.md"),
}
"""What someone with fresh eyes should manage, and the pages that say how."""


def test_start_names_every_extra() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    extras = pyproject.split("[project.optional-dependencies]")[1].split("\n[")[0]
    names = set(re.findall(r"^(\w+) = ", extras, re.MULTILINE)) - {"docs", "dev"}
    assert names == set(re.findall(r"^\| `(\w+)` \|", PAGES["start.md"], re.MULTILINE))


def links(page: str) -> set[str]:
    """Pages that a page links to."""
    found = re.findall(r"\]\(([^)#:]+\.md)(?:#[\w-]+)?\)", PAGES[page])
    return {(DOCS / page).parent.joinpath(link).resolve().relative_to(DOCS).as_posix()
            for link in found}  # fmt: skip


def test_tasks_are_two_clicks_away() -> None:
    one = links("index.md")
    two = one.union(*(links(page) for page in one))
    for task, pages in TASKS.items():
        assert set(pages) <= two, task


def test_links_and_navigation() -> None:
    for page in PAGES:
        assert links(page) <= PAGES.keys(), page
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", README):
        assert (ROOT / link).exists(), link
    navigation = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(navigation) == sorted(PAGES)


def test_the_reference_has_all_public_names() -> None:
    reference = "\n".join(text for page, text in PAGES.items() if page.startswith("reference/"))
    told = set(re.findall(r"^::: [\w.]+\.(\w+)$", reference, re.MULTILINE))
    left_out = {"FORMATS", "CHECKPOINT", "CONFIG", "OVERRIDES", "LongVideoPredictorVOS"}
    for package in ("", "masks", "detections", "fleet", "testing"):
        module = ast.parse((PACKAGE / package / "__init__.py").read_text())
        names = next(
            ast.literal_eval(node.value)
            for node in module.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        assert set(names) - left_out <= told, package
