"""Installing beside the official SAM 2: every order, in fresh environments without the network.

An environment here sees the packages of the one that runs the tests, except longsam, both SAM 2 and
both decords. The official SAM 2 is a stand-in: a setuptools project named SAM-2 1.0, as the one in
its repository, with the files of the installed upstream.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import sam2
from packaging.requirements import Requirement

import longsam
from longsam import LongVideoPredictor, _installed_sam2
from longsam._installed_sam2 import differing_files
from longsam.testing import SyntheticVideo, load_predictor

ROOT = Path(__file__).parents[1]
UPSTREAM = Path(sam2.__file__).parent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links to packages; paths as on Unix")
needs_source = pytest.mark.skipif(
    not (ROOT / "longsam" / "__init__.py").exists(), reason="needs longsam's source"
)

SETUP = """
from setuptools import find_packages, setup
setup(
    name={name!r}, version={version!r}, packages=find_packages(), include_package_data=True,
    install_requires=["torch>=2.5.1", "torchvision>=0.20.1", "numpy>=1.24.4", "tqdm>=4.66.1",
                      "hydra-core>=1.3.2", "iopath>=0.1.10", "pillow>=9.4.0"],
)
"""

TRACK = """
import hashlib, json, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from longsam.testing import SyntheticVideo, load_predictor
    load_predictor()  # warnings come with the first build only
    predictor = load_predictor()
    state = predictor.init_state(SyntheticVideo(seed=0, num_frames=3))
    predictor.add_new_points_or_box(state, 0, 1, points=[[100, 100]], labels=[1])
    logits = [logits for _, _, logits in predictor.propagate_in_video(state)]
import sam2
print(json.dumps({
    "masks": hashlib.sha256(b"".join(one.numpy().tobytes() for one in logits)).hexdigest(),
    "sam2": sam2.__file__,
    "modules": [module.__file__ for name, module in sys.modules.items() if name.startswith("sam2")],
    "warnings": [str(w.message) for w in caught if "post-processing" not in str(w.message)],
}))
"""
"""Track three frames with the testing model; prints what was seen."""


class Environment:
    """A fresh virtual environment."""

    def __init__(self, folder: Path, packages: Path):
        venv.create(folder, symlinks=True)  # its own pip would take three seconds; it links ours
        self.folder = folder
        self.program = folder / "bin" / "python"
        (self.site,) = folder.glob("lib/python*/site-packages")
        (self.site / "outer.pth").write_text(f"{packages}\n")

    def run(
        self, *arguments: str | Path, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))
        }
        settings = {
            "PYTHONNOUSERSITE": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
        }
        return subprocess.run(
            [self.program, *arguments],
            cwd=cwd or self.folder,
            env=kept | settings,
            capture_output=True,
            text=True,
        )

    def pip(self, *arguments: str | Path) -> str:
        run = self.run("-m", "pip", *arguments)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def upstream(self) -> Path | None:
        """The folder that `import sam2` would import, None if there is none."""
        find = "import importlib.util as u; s = u.find_spec('sam2'); print(s and s.origin or '')"
        origin = self.run("-c", find).stdout.strip()
        return Path(origin).parent if origin else None

    def error(self, statement: str, cwd: Path | None = None) -> str:
        run = self.run("-c", statement, cwd=cwd)
        assert run.returncode == 1, run.stdout
        return run.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to the packages of this environment, without those that the tests install."""
    folder = tmp_path_factory.mktemp("packages")
    without = ("longsam", "sam2", "sam_2", "decord", "eva_decord", "__editable__", "__pycache__")
    for place in map(Path, sys.path):
        if place.name in ("site-packages", "dist-packages") and place.is_dir():
            for entry in place.iterdir():
                link = folder / entry.name
                if not entry.name.lower().startswith(without) and entry.suffix != ".pth":
                    link.exists() or link.symlink_to(entry.resolve())
    return folder


@pytest.fixture
def environment(tmp_path: Path, packages: Path) -> Environment:
    return Environment(tmp_path / "environment", packages)


def clone_of_upstream(folder: Path, name: str = "SAM-2", version: str = "1.0") -> Path:
    """A project like the official repository's clone."""
    ignored = shutil.ignore_patterns("__pycache__", "_C*")
    shutil.copytree(UPSTREAM, folder / "sam2", ignore=ignored)
    (folder / "setup.py").write_text(SETUP.format(name=name, version=version))
    (folder / "MANIFEST.in").write_text("recursive-include sam2 *.yaml\n")
    return folder


def clone_of_longsam(folder: Path) -> Path:
    folder.mkdir()
    for name in ("longsam", "tests", "examples", "docs"):
        if (ROOT / name).exists():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Path:
    """A folder with wheels of longsam, SAM-2 1.0 and sam2 1.1.0, as an index would have them."""
    folder = tmp_path_factory.mktemp("wheels")
    builder = Environment(folder / "environment", packages)
    projects = [
        clone_of_longsam(folder / "longsam"),
        clone_of_upstream(folder / "official"),
        clone_of_upstream(folder / "copy", "sam2", "1.1.0"),
    ]
    options = ["--no-deps", "--no-build-isolation", "-w", folder]
    builder.pip("wheel", *options, *projects)
    return folder


@pytest.fixture(scope="session")
def masks() -> str:
    """The hash of what TRACK tracks, in this process."""
    predictor = load_predictor()
    state = predictor.init_state(SyntheticVideo(seed=0, num_frames=3))
    predictor.add_new_points_or_box(state, 0, 1, points=[[100, 100]], labels=[1])
    logits = [logits for _, _, logits in predictor.propagate_in_video(state)]
    return hashlib.sha256(b"".join(one.numpy().tobytes() for one in logits)).hexdigest()


def install(environment: Environment, what: str, wheels: Path, *options: str) -> None:
    environment.pip("install", "--find-links", wheels, *(options or ["--no-deps"]), what)


def install_with_dependencies(environment: Environment, what: str, wheels: Path) -> None:
    """As a user does; all dependencies are there but SAM 2 and decord."""
    install(environment, what, wheels, "--only-binary=:all:")


def install_editable(environment: Environment, project: Path) -> None:
    environment.pip("install", "--no-deps", "--no-build-isolation", "-e", project)


def track(environment: Environment, expected: Path, masks: str) -> list[str]:
    """Track with this upstream; returns longsam's warnings."""
    run = environment.run("-c", TRACK)
    assert run.returncode == 0, run.stderr
    seen: dict[str, Any] = json.loads(run.stdout)
    assert Path(seen["sam2"]).parent == expected
    assert seen["masks"] == masks
    used = {Path(file).relative_to(expected).as_posix() for file in seen["modules"]}
    assert used <= json.loads(_installed_sam2.TESTED.read_text()).keys()
    warnings: list[str] = seen["warnings"]
    return warnings


def check(environment: Environment) -> None:
    assert "No broken requirements found." in environment.pip("check")


def uninstall_longsam(environment: Environment, upstream: Path, wheels: Path) -> None:
    """Assert that upstream is as it was without longsam, which is then installed again."""
    environment.pip("uninstall", "-y", "longsam")
    assert environment.upstream() == upstream
    assert differing_files(upstream) == []
    assert "No module named 'longsam'" in environment.error("import longsam")
    install(environment, "longsam", wheels)


# Each of the next tests is a user's story: install in one order, track, uninstall either.


@pytest.mark.slow
@needs_source
@pytest.mark.parametrize("first", ["official", "longsam"])
def test_beside_the_official_clone(
    first: str, environment: Environment, wheels: Path, masks: str, tmp_path: Path
) -> None:
    clone = clone_of_upstream(tmp_path / "clone")
    if first == "official":
        install_editable(environment, clone)
        install(environment, "longsam", wheels)
    else:
        install(environment, "longsam", wheels)
        install_editable(environment, clone)
    check(environment)
    assert track(environment, clone / "sam2", masks) == []
    uninstall_longsam(environment, clone / "sam2", wheels)
    environment.pip("uninstall", "-y", "SAM-2")
    assert environment.upstream() is None
    assert differing_files(clone / "sam2") == []


@pytest.mark.slow
@needs_source
def test_beside_the_official_one_installed(
    environment: Environment, wheels: Path, masks: str
) -> None:
    install(environment, "SAM-2", wheels)
    install_with_dependencies(environment, "longsam", wheels)
    check(environment)
    assert track(environment, environment.site / "sam2", masks) == []
    uninstall_longsam(environment, environment.site / "sam2", wheels)
    environment.pip("uninstall", "-y", "SAM-2")
    assert environment.upstream() is None


@pytest.mark.slow
@needs_source
def test_extra_then_the_official_clone(
    environment: Environment, wheels: Path, masks: str, tmp_path: Path
) -> None:
    install_with_dependencies(environment, "longsam[sam2]", wheels)
    clone = clone_of_upstream(tmp_path / "clone")
    install_editable(environment, clone)
    check(environment)
    (warning,) = track(environment, environment.site / "sam2", masks)
    assert "Two distributions own the package sam2: SAM-2 and sam2." in warning
    assert "Uninstall the one that is not editable: `pip uninstall sam2`." in warning
    uninstall_longsam(environment, environment.site / "sam2", wheels)
    environment.pip("uninstall", "-y", "sam2")  # as the warning says
    # Whoever has the clone may edit it.
    with (clone / "sam2" / "modeling" / "sam2_base.py").open("a") as file:
        file.write("\n# An edit.\n")
    (warning,) = track(environment, clone / "sam2", masks)
    assert f"The SAM 2 in {clone / 'sam2'} differs" in warning
    assert "in modeling/sam2_base.py. It is used" in warning


@pytest.mark.slow
@needs_source
def test_extra_then_the_official_one(environment: Environment, wheels: Path, masks: str) -> None:
    install(environment, "longsam", wheels)
    install(environment, "sam2", wheels)
    install(environment, "SAM-2", wheels)
    check(environment)
    (warning,) = track(environment, environment.site / "sam2", masks)
    assert "`pip uninstall SAM-2 sam2`, then install one of the two:" in warning
    uninstall_longsam(environment, environment.site / "sam2", wheels)
    environment.pip("uninstall", "-y", "sam2")  # which removes the files of both
    error = environment.error("import longsam._installed_sam2")
    assert "pip lists SAM-2, but its files are gone" in error
    environment.pip("uninstall", "-y", "SAM-2")  # as the error says
    install(environment, "SAM-2", wheels)
    assert differing_files(environment.site / "sam2") == []


USES = """
for statement in (
    "from longsam import LongVideoPredictor", "from longsam import *", "import longsam.build",
    "from longsam.testing import load_predictor", "import longsam.detections",
):
    try:
        exec(statement)
    except ImportError as error:
        print(error)
import longsam, longsam.masks
longsam.LiveVideo
"""


@pytest.mark.slow
@needs_source
def test_without_a_usable_sam2(environment: Environment, wheels: Path, tmp_path: Path) -> None:
    install(environment, "longsam", wheels)
    run = environment.run("-c", USES)
    assert run.returncode == 0, run.stderr
    errors = run.stdout.splitlines()
    assert len(errors) == 5
    for error in errors:
        assert error.startswith("longsam runs on SAM 2, and there is no package sam2.")
        assert "`pip install git+https://github.com/facebookresearch/sam2`" in error
        assert "`pip install -e .`" in error
        assert '`pip install "longsam[sam2]"`' in error

    use = "from longsam import LongVideoPredictor"
    clone = clone_of_upstream(tmp_path / "clone")
    module = clone / "sam2" / "sam2_video_predictor.py"
    module.write_text(module.read_text().replace("class SAM2VideoPredictorVOS", "class Older"))
    install_editable(environment, clone)
    error = environment.error(use)
    assert f"The SAM 2 in {clone / 'sam2'} is older than December 2024" in error
    assert "`git pull` in its clone" in error

    (tmp_path / "work" / "sam2").mkdir(parents=True)  # as a clone's folder may be called
    error = environment.error("import longsam._installed_sam2", cwd=tmp_path / "work")
    assert f"The folder {tmp_path / 'work' / 'sam2'} hides the package sam2" in error


@pytest.mark.slow
@needs_source
def test_editable_install_is_found_where_the_clone_lies(
    environment: Environment, tmp_path: Path
) -> None:
    """There the clone's folder, which has the package's name, looks like a namespace package."""
    clone = clone_of_longsam(tmp_path / "longsam")
    environment.pip("install", "--no-deps", "--no-build-isolation", "-e", clone)
    statement = "import longsam; print(longsam.__version__, longsam.__file__)"
    expected = f"{longsam.__version__} {clone / 'longsam' / '__init__.py'}\n"
    (tmp_path / "script.py").write_text(statement)
    assert environment.run("-c", statement, cwd=tmp_path).stdout == expected
    assert environment.run("script.py", cwd=tmp_path).stdout == expected
    assert environment.run("-c", statement, cwd=tmp_path / "environment").stdout == expected


@pytest.mark.slow
@needs_source
def test_what_wheel_and_sdist_hold(environment: Environment, wheels: Path, tmp_path: Path) -> None:
    (wheel,) = wheels.glob("longsam-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "longsam").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"longsam/py.typed", "longsam/testing/weights/testing_model.pt"} <= ours
    assert {name for name in held if ".dist-info/" not in name} == ours

    clone = clone_of_longsam(tmp_path / "clone")
    for name in (".venv/lib", "out", "longsam/__pycache__"):
        (clone / name).mkdir(parents=True)
        (clone / name / "file").touch()
    build = environment.run("-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=clone)
    assert build.returncode == 0, build.stderr
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert ours <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/test_install.py"} <= names
    assert "docs/index.md" in names
    assert not [name for name in names if name.endswith("/file")]


def packages_of(distribution: metadata.Distribution, extra: str) -> set[str]:
    """The names of all that an extra installs besides what is always installed."""
    names: set[str] = set()
    for requirement in map(Requirement, distribution.requires or []):
        if requirement.marker and requirement.marker.evaluate({"extra": extra}):
            names.add(requirement.name)
            for other in requirement.extras if requirement.name == "longsam" else ():
                names |= packages_of(distribution, other)
    return names


@pytest.mark.slow
@needs_source
def test_only_the_extras_sam2_and_dev_install_a_sam2(wheels: Path, tmp_path: Path) -> None:
    (wheel,) = wheels.glob("longsam-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    (folder,) = tmp_path.glob("*.dist-info")
    distribution = metadata.Distribution.at(folder)
    extras = distribution.metadata.get_all("Provides-Extra") or []
    with_sam2 = {extra for extra in extras if packages_of(distribution, extra) & {"sam2", "SAM-2"}}
    assert with_sam2 == {"sam2", "dev"}
    with_decord = {
        extra for extra in extras if packages_of(distribution, extra) & {"decord", "eva-decord"}
    }
    assert with_decord <= {"decord", "dev"}  # empty where it has no wheels
    plain = [str(requirement) for requirement in distribution.requires or []]
    assert not [one for one in plain if one.startswith(("sam", "SAM")) and "extra" not in one]


def edit(folder: Path) -> None:
    (folder / "sam2_video_predictor.py").write_text("# Another one.")


def remove(folder: Path) -> None:
    (folder / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml").unlink()


def windows_line_ends(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        if path.suffix in (".py", ".yaml"):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def edit_what_only_images_need(folder: Path) -> None:
    (folder / "automatic_mask_generator.py").write_text("# Another one.")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (edit, ["sam2_video_predictor.py"]),
        (remove, ["configs/sam2.1/sam2.1_hiera_t.yaml"]),
        (windows_line_ends, []),
        (edit_what_only_images_need, []),
    ],
)
def test_differing_files(change: Callable[[Path], None], names: list[str], tmp_path: Path) -> None:
    shutil.copytree(UPSTREAM, tmp_path / "sam2")
    assert differing_files(tmp_path / "sam2") == []
    change(tmp_path / "sam2")
    assert differing_files(tmp_path / "sam2") == names


def test_comparing_takes_milliseconds() -> None:
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        _installed_sam2.check_once.__wrapped__()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.02  # 2 ms on an idle core


def test_public_names() -> None:
    assert longsam.__all__ == [
        "Autosave",
        "LiveVideo",
        "LongVideoPredictor",
        "LongVideoPredictorVOS",
        "Snapshots",
        "State",
        "build_long_video_predictor",
    ]
    assert set(longsam.__all__) <= set(dir(longsam))
    assert [name for name in longsam.__all__ if getattr(longsam, name).__name__ != name] == []
    assert longsam.LongVideoPredictor is LongVideoPredictor
    with pytest.raises(AttributeError, match="module 'longsam' has no attribute 'track'"):
        longsam.track  # noqa: B018
