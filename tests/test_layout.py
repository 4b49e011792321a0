"""Who may import whom, who may know upstream's keys, and how long a module may be."""

import ast
import importlib
import warnings
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

import longsam
from longsam.testing import CHECKPOINT, CONFIG, OVERRIDES, SyntheticVideo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "longsam"

ORDER = [
    "__init__",
    "build",
    "checkpoints",
    "predictor",
    "opening",
    "propagation",
    "prompting",
    "notices",
    "saving",
    "scores",
    "session",
    "memory",
    "policies",
    "batches",
    "snapshots",
    "storage",
    "fingerprint",
    "checks",
    "options",
    "frame_map",
    "object_ids",
    "_upstream",
    "frames",
    "_installed_sam2",
    "_warn",
]
"""The wrapper: a module imports from those below it."""

AROUND = ["__main__", "prompts", "masks", "detections", "cli", "app", "fleet", "testing"]
"""What is built on the wrapper, through its public names."""

PUBLIC = {
    "longsam": {*longsam.__all__, "__version__"},
    "longsam.frames": set(importlib.import_module("longsam.frames").__all__),
    "longsam.policies": set(importlib.import_module("longsam.policies").__all__),
}
"""What those around the wrapper, and the examples, may import of it."""

MAX_LINES = {"predictor": 640}
"""Of a module of the wrapper; others may have 350. Of the predictor's 230 are docstrings."""

GENERIC_KEYS = {
    "images",
    "num_frames",
    "device",
    "constants",
    "obj_ids",
    "offload_video_to_cpu",
    "offload_state_to_cpu",
    "reverse",
}
"""Upstream's keys that are words of ours too; only in a state are they upstream's."""


class Import(NamedTuple):
    """`from module import name`, or `import module` with no name."""

    line: int
    module: str
    name: str | None


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path, *, for_types: bool = True) -> Iterator[Import]:
    """All imports of a file, those in functions too.

    Args:
        for_types: With those in `if TYPE_CHECKING:`.
    """
    nodes: list[ast.AST] = [parsed(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                yield Import(node.lineno, node.module or "", alias.name)
        elif isinstance(node, ast.If) and not for_types and "TYPE_CHECKING" in ast.dump(node.test):
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)


def files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def unit(path: Path) -> str:
    """The module or package of longsam that a file belongs to: "predictor", "frames"."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


WRAPPER = [path for path in files(PACKAGE) if unit(path) not in AROUND]


def imported(found: Import) -> str | None:
    """The file of longsam that an import reads, as a path below the package; None is none."""
    if found.module.split(".")[0] != "longsam":
        return None
    folder = PACKAGE.joinpath(*found.module.split(".")[1:])
    for path in (folder / f"{found.name}.py", folder / f"{found.name}" / "__init__.py"):
        if found.name is not None and path.exists():
            return str(path.relative_to(PACKAGE))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    assert path.exists(), f"{found.module} is not there"
    return str(path.relative_to(PACKAGE))


def test_public_names_are_there() -> None:
    """Which they are is in test_install.py."""
    for module, names in PUBLIC.items():
        assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


def test_around_the_wrapper_only_public_names_are_used() -> None:
    wrong = []
    outside = [path for path in files(PACKAGE) if unit(path) in AROUND]
    for path in outside + files(ROOT / "examples"):
        where = path.relative_to(ROOT)
        for found in imports(path):
            parts = found.module.split(".")
            if parts[0] != "longsam":
                continue
            if len(parts) > 1 and parts[1] in AROUND:
                is_private = any(part.startswith("_") for part in (*parts, found.name or ""))
                is_public = not is_private or parts[1] == unit_or_none(path)
            elif found.name is None:
                is_public = found.module == "longsam"
            elif found.module == "longsam" and found.name in (*AROUND, "frames"):
                is_public = True
            else:
                is_public = found.name in PUBLIC.get(found.module, ())
            if not is_public:
                wrong.append(f"{where}:{found.line}: {found.module} {found.name or ''}")
        wrong += [
            f"{where}:{node.lineno}: longsam.{node.attr}"
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "longsam"
            and node.attr not in {*PUBLIC["longsam"], *AROUND, "frames"}
        ]
    assert not wrong, "\n".join(wrong)


def unit_or_none(path: Path) -> str | None:
    return unit(path) if path.is_relative_to(PACKAGE) else None


def test_what_is_around_does_not_import_the_command_line() -> None:
    """Nor does anything import what is on top of it: masks and testing are on the ground."""
    below = {
        "masks": set(),
        "testing": set(),
        "detections": set(),
        "fleet": {"masks", "prompts"},
        "prompts": {"masks"},
    }
    wrong = []
    for path in files(PACKAGE):
        allowed = below.get(unit(path))
        for found in imports(path):
            file = imported(found)
            used = None if file is None else unit(PACKAGE / file)
            if allowed is not None and used in AROUND and used not in {unit(path), *allowed}:
                wrong.append(f"{path.relative_to(ROOT)}:{found.line}: {used}")
    assert not wrong, "\n".join(wrong)


def test_the_wrapper_does_not_know_what_is_around_it() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{found.line}: {file}"
        for path in WRAPPER
        for found in imports(path)
        if (file := imported(found)) is not None and unit(PACKAGE / file) in AROUND
    ]
    assert not wrong, "\n".join(wrong)


def test_the_wrapper_has_no_circle() -> None:
    graph = {
        str(path.relative_to(PACKAGE)): {
            file
            for found in imports(path, for_types=False)
            if (file := imported(found)) is not None
        }
        for path in WRAPPER
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_the_wrapper_imports_downwards() -> None:
    unknown = sorted({unit(path) for path in WRAPPER} - set(ORDER))
    assert not unknown, f"list these in ORDER: {unknown}"
    wrong = [
        f"{path.relative_to(ROOT)}:{found.line}: {unit(PACKAGE / file)}"
        for path in WRAPPER
        for found in imports(path, for_types=False)
        if (file := imported(found)) is not None
        and ORDER.index(unit(PACKAGE / file)) < ORDER.index(unit(path))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def upstream_keys(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every key of upstream's state, after a click and a frame, at any depth."""
    folder = tmp_path_factory.mktemp("layout")
    video = SyntheticVideo(0, 3, (64, 64))
    for i in range(3):
        Image.fromarray(video.frame(i)).save(folder / f"{i}.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor = build_sam2_video_predictor(
            CONFIG, str(CHECKPOINT), device="cpu", hydra_overrides_extra=list(OVERRIDES)
        )
        state = predictor.init_state(str(folder))
        predictor.add_new_points_or_box(state, 0, 1, points=[[30, 30]], labels=[1])
        for _ in predictor.propagate_in_video(state):
            pass
    found: set[str] = set()
    values = [state]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            found.update(key for key in value if isinstance(key, str))
            values += value.values()
    return found


def test_upstreams_keys_are_in_one_module(upstream_keys: set[str]) -> None:
    assert {"output_dict_per_obj", "cond_frame_outputs", "maskmem_features"} <= upstream_keys
    assert upstream_keys >= GENERIC_KEYS
    wrong = []
    for path in WRAPPER:
        if unit(path) == "_upstream":
            continue
        where = path.relative_to(ROOT)
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Constant) and node.value in upstream_keys - GENERIC_KEYS:
                wrong.append(f"{where}:{node.lineno}: {node.value}")
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                of = ast.unparse(node.value)
                if of.endswith("state") and node.slice.value in upstream_keys:
                    wrong.append(f"{where}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_a_predictor_has_a_type() -> None:
    wrong = []
    for path in files(PACKAGE):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.arg) and node.arg == "predictor":
                annotation = None if node.annotation is None else ast.unparse(node.annotation)
                if annotation in (None, "Any", "object"):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {annotation}")
    assert not wrong, "\n".join(wrong)


def test_modules_are_small() -> None:
    too_long = []
    for path in WRAPPER:
        num_lines = len(path.read_text().splitlines())
        if num_lines > MAX_LINES.get(path.stem, 350):
            too_long.append(f"{path.relative_to(ROOT)}: {num_lines} lines")
    assert not too_long, "\n".join(too_long)
