"""Wheel and sdist on several Pythons and torches, each in a fresh virtual environment.

    python tests/benchmarks/installs.py 3.10+2.5.1 3.11 3.12 3.13     # about 15 minutes for each

For each Python (as `python3.10` on the path), with the torch named after a plus sign or else the
newest: the sdist is built, the wheel is built from it, installed with its extra `dev`, checked with
`pip check`, and the tests are run in a folder where the checkout cannot be imported (those of
test_install.py that build longsam are skipped there). Arguments after `--` go to pytest. Adds to
results/installs.json, by environment.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report

ROOT = Path(__file__).parents[2]


def measured(wish: str, sdist: Path, folder: Path, pytest: list[str]) -> dict[str, Any]:
    python, _, torch = wish.partition("+")
    interpreter = shutil.which(f"python{python}")
    if interpreter is None:
        sys.exit(f"There is no python{python} on the path.")
    subprocess.run([interpreter, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    pins = [f"torch=={torch}"] if torch else []
    pip = [programs / "pip", "--disable-pip-version-check"]
    wheels = folder / "wheels"
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", wheels, sdist], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "-q", f"{wheel}[dev]", *pins], check=True)
    check = subprocess.run([*pip, "check"], capture_output=True, text=True)
    work = folder / "work"
    work.mkdir()
    for name in ("tests", "examples", "docs", ".ci"):
        shutil.copytree(ROOT / name, work / name)
    for name in (
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "mkdocs.yml",
        "pyproject.toml",
    ):  # fmt: skip
        shutil.copy(ROOT / name, work / name)
    run = subprocess.run(
        [programs / "pytest", "-q", "-n", "2", *pytest], cwd=work, capture_output=True, text=True
    )
    print(run.stdout[-3000:], flush=True)
    freeze = subprocess.run([*pip, "freeze"], capture_output=True, text=True).stdout
    names = "torch|torchvision|numpy|sam2|av|eva-decord"
    versions = dict(re.findall(rf"^({names})==(\S+)$", freeze, re.M))
    where = subprocess.run(
        [programs / "python", "-c", "import longsam; print(longsam.__file__)"],
        cwd=work,
        capture_output=True,
        text=True,
    ).stdout
    return {
        "commit": report.COMMIT,
        "sdist": sdist.name,
        "wheel": wheel.name,
        "wheel_mb": round(wheel.stat().st_size / 1e6, 2),
        "versions": versions,
        "is_installed": "site-packages" in where,
        "pip_check": check.stdout.strip(),
        "pytest": [*pytest],
        "ended": (run.stdout.strip() or run.stderr.strip()).splitlines()[-1],
        "not_passed": re.findall(r"^(?:FAILED|ERROR|SKIPPED) .*$", run.stdout, re.M),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("environments", nargs="+", help="3.12, or with its torch 3.10+2.5.1")
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:at])
    for wish in options.environments:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            subprocess.run(
                [sys.executable, "-m", "build", "-q", "--sdist", "-o", folder, ROOT], check=True
            )
            (sdist,) = folder.glob("*.tar.gz")
            result = measured(wish, sdist, folder, arguments[at + 1 :])
        numbers = report.numbers_so_far("installs")
        numbers[wish] = result
        print(wish, result, report.write("installs", numbers), flush=True)


if __name__ == "__main__":
    main()
