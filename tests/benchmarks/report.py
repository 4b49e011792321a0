"""What every benchmark writes beside its numbers: hardware, versions, commit, command."""

import datetime
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "longsam",
    "sam2",
    "SAM-2",
    "torch",
    "numpy",
    "av",
    "eva-decord",
    "decord",
    "pillow",
    "ray",
)


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "../../longsam", ".")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


COMMIT = commit()
"""As the script started: the code it runs, whatever is committed meanwhile."""


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:  # of SAM 2 and decord one name or the other is installed
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def environment() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "commit": COMMIT,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "python": platform.python_version(),
        "versions": versions(),
    }


def numbers_so_far(name: str) -> dict[str, Any]:
    """What an earlier run has written, for scripts that measure part after part."""
    path = RESULTS / f"{name}.json"
    numbers: dict[str, Any] = json.loads(path.read_text())["numbers"] if path.exists() else {}
    return numbers


def write(name: str, numbers: Any) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), "numbers": numbers}, indent=1) + "\n")
    return path
