"""The installed SAM 2: found or explained, and compared with the one longsam was tested with.

Upstream has two names for pip: the official repository installs the distribution `SAM-2`, and
`sam2` on PyPI is a third party's upload of the same files. pip does not know that both own the
package `sam2`: one overwrites or hides the other, and uninstalling one may remove both.

The whole wrapper imports upstream from here, so that the explanation comes first.
"""

import hashlib
import json
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from longsam._warn import warn

DISTRIBUTIONS = ("SAM-2", "sam2")
"""The distributions that may own the package `sam2`: the official repository's, and PyPI's."""

TESTED = Path(__file__).with_name("_tested_sam2.json")
"""Hashes of upstream's files as tested; written by tests/tested_sam2.py."""

HOW_TO_INSTALL = (
    "the official SAM 2, `pip install git+https://github.com/facebookresearch/sam2` (or "
    "`pip install -e .` in a clone of it), or its copy on PyPI, "
    '`pip install "longsam[sam2]"`'
)


def _installed() -> dict[str, metadata.Distribution]:
    """Which of the two distributions pip has installed, by name."""
    found = {}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            distribution = metadata.distribution(name)
            # A clone that was once built holds an egg-info; only an installed one has a RECORD.
            if distribution.read_text("RECORD") is not None:
                found[name] = distribution
    return found


def _import_error(error: ImportError) -> ImportError:
    """What to do about a failed import of upstream."""
    package = sys.modules.get("sam2")
    if package is None:
        text = "longsam runs on SAM 2, and there is no package sam2."
        if names := " ".join(_installed()):
            text += (
                f" pip lists {names}, but its files are gone, as happens when two distributions "
                f"had the same ones. Uninstall it first: `pip uninstall {names}`."
            )
        text += f" Install one of the two: {HOW_TO_INSTALL}."
    elif package.__file__ is None:
        text = (
            f"The folder {next(iter(package.__path__))} hides the package sam2, or there is none. "
            "Run Python in another folder. If that does not help, install one of the two: "
            f"{HOW_TO_INSTALL}."
        )
    elif error.name == "sam2.sam2_video_predictor":
        text = (
            f"The SAM 2 in {Path(package.__file__).parent} is older than December 2024 and has no "
            "SAM2VideoPredictorVOS. Update it: `git pull` in its clone and install it again, or "
            f"install one of the two: {HOW_TO_INSTALL}."
        )
    else:
        text = (
            f"The SAM 2 in {Path(package.__file__).parent} cannot be imported: {error}. Install "
            "what it needs, or install it again."
        )
    return ImportError(text, name="sam2")


try:
    import sam2
    from sam2 import build_sam, sam2_video_predictor
    from sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS
except ImportError as error:
    raise _import_error(error) from error

__all__ = [
    "SAM2VideoPredictor",
    "SAM2VideoPredictorVOS",
    "build_sam",
    "check_once",
    "sam2_video_predictor",
]


@cache
def check_once() -> None:
    """Warn about a second SAM 2, and about files not tested with longsam; once per process."""
    folder = Path(sam2.__file__).parent
    installed = _installed()
    if len(installed) > 1:
        warn(_two_distributions(installed, folder))
    names = differing_files(folder)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        warn(
            f"The SAM 2 in {folder} differs from the one that longsam was tested with (sam2 1.1.0 "
            f"on PyPI, commit 2b90b9f of facebookresearch/sam2) in {', '.join(names[:5])}{more}. "
            "It is used as it is, but masks were not compared with upstream's on it."
        )


def _two_distributions(installed: dict[str, metadata.Distribution], folder: Path) -> str:
    others = [name for name in installed if not _is_editable(installed[name])]
    names = " and ".join(installed)
    text = f"Two distributions own the package sam2: {names}. Python imports {folder}."
    if len(others) == 1:
        return f"{text} Uninstall the one that is not editable: `pip uninstall {others[0]}`."
    return (
        f"{text} They have the same files, so uninstalling one breaks the other. Uninstall both, "
        f"`pip uninstall {' '.join(installed)}`, then install one of the two: {HOW_TO_INSTALL}."
    )


def _is_editable(distribution: metadata.Distribution) -> bool:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def differing_files(folder: Path) -> list[str]:
    """Files of a `sam2` folder that are not as tested, or missing, as paths within it."""
    tested: dict[str, str] = json.loads(TESTED.read_text())
    return [name for name, expected in tested.items() if file_hash(folder / name) != expected]


def file_hash(path: Path) -> str | None:
    """SHA-256 of a text file, for any kind of line ends; None if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
