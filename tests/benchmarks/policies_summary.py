"""Means of what policies.py measured, with a paired bootstrap over videos, and a plot."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DRAWS = 10_000

SHARES = {
    "absent_called_absent": ("num_absent_called_absent", "num_absent"),
    "found_again": ("num_found", "num_returns"),
}


def rows_of(videos: dict[str, Any], method: str, objects: str) -> list[dict[str, float]]:
    """A row a video: means over its objects, and sums of counts.

    Args:
        videos: By seed and method what `follow` has given.
        method: One of them.
        objects: "one" takes the object `seed % num_objects`, "several" all.
    """
    rows = []
    for by_method in videos.values():
        found = by_method[method]
        counts = list(found["objects"].values())
        if objects == "one":
            counts = [found["objects"][str(found["target"])]]
        row = {}
        for name in ("J", "Q", "Q_of_nothing"):
            values = [count[name] for count in counts if count[name] is not None]
            row[name] = float(np.mean(values)) if values else np.nan
        for pair in SHARES.values():
            row |= {name: sum(count[name] for count in counts) for name in pair}
        rows.append(row)
    return rows


def summary(
    videos: dict[str, Any], methods: list[str], objects: str, known: dict[str, Any]
) -> dict[str, Any]:
    """Of each method means and shares, and differences from each other one.

    A difference is [mean, 2.5 %, 97.5 %] of a bootstrap that draws whole videos, the same ones for
    both methods.

    Args:
        videos: As in `rows_of`.
        methods: Those that were measured now.
        objects: As in `rows_of`.
        known: By seed, method and object J and Q of an earlier run.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(videos), (DRAWS, len(videos)))
    columns = {}
    for method in methods:
        rows = rows_of(videos, method, objects)
        columns[method] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    others = {method: column["Q"] for method, column in columns.items()}
    for method in next(iter(known.values()), {}):
        column = np.array([_known_q(known[seed][method], videos[seed], objects) for seed in videos])
        if method in others and not np.allclose(column, others[method], atol=1e-9, equal_nan=True):
            raise SystemExit(
                f"{method} does not give the same Q as in the JSON: measure all again."
            )
        others[method] = column
    of_all: dict[str, Any] = {}
    for method, own in columns.items():
        one: dict[str, Any] = {"num_videos": len(videos)}
        for name in ("J", "Q", "Q_of_nothing"):
            one[name] = rounded(np.nanmean(own[name]))
        for share, (part, whole) in SHARES.items():
            one[share] = rounded(own[part].sum() / max(own[whole].sum(), 1))
            one[part], one[whole] = int(own[part].sum()), int(own[whole].sum())
        one["Q_less"] = {
            other: difference(own["Q"] - column, drawn)
            for other, column in others.items()
            if other != method
        }
        if method != "none" and "none" in columns:
            plain = columns["none"]
            one["J_less_none"] = difference(own["J"] - plain["J"], drawn)
            for share, (part, whole) in SHARES.items():
                shares = [
                    of[part][drawn].sum(axis=1) / np.maximum(of[whole][drawn].sum(axis=1), 1)
                    for of in (own, plain)
                ]
                between = np.quantile(shares[0] - shares[1], (0.025, 0.975))
                whole_plain = plain[part].sum() / max(plain[whole].sum(), 1)
                one[f"{share}_less_none"] = [
                    rounded(x) for x in (one[share] - whole_plain, *between)
                ]
        of_all[method] = one
    return of_all


def _known_q(by_object: dict[str, Any], found: dict[str, Any], objects: str) -> float:
    """The Q of a video in an earlier run."""
    names = [next(iter(found.values()))["target"]] if objects == "one" else by_object
    values = [by_object[str(name)][1] for name in names if by_object[str(name)][1] is not None]
    return float(np.mean(values)) if values else np.nan


def joined(fresh: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Summaries of methods measured now and before, with the differences between them."""
    for method, one in before.items():
        if method not in fresh:
            for other, new in fresh.items():
                mean, low, high = new["Q_less"][method]
                one["Q_less"][other] = [-mean, -high, -low]
    order = [*before, *(method for method in fresh if method not in before)]
    return {method: fresh.get(method) or before[method] for method in order}


def difference(values: Any, drawn: Any) -> list[float | None]:
    means = np.nanmean(values[drawn], axis=1)
    return [rounded(x) for x in (np.nanmean(values), *np.quantile(means, (0.025, 0.975)))]


def rounded(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def held(videos: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """Bytes of the state at the end, an object, median and greatest."""
    found: dict[str, Any] = {}
    for method in methods:
        ends = [(of[method], len(of[method]["objects"])) for of in videos.values()]
        found[method] = {
            f"{kind}_an_object": {"median": int(np.median(values)), "greatest": int(max(values))}
            for kind in ("state_bytes", "policy_bytes")
            if (values := [one[kind] / num for one, num in ends])
        }
    return found


def blocks(videos: dict[str, Any], methods: list[str]) -> dict[str, list[float | None]]:
    """Q of each 500 frames of the long videos, the mean over videos."""
    found = {}
    for method in methods:
        rows = [
            count["Q_by_block"]
            for of in videos.values()
            for count in of[method]["objects"].values()
        ]
        columns = [np.array(column, float) for column in zip_longest(*rows)]
        found[method] = [rounded(np.nanmean(column)) for column in columns]
    return found


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Q, J and shares of each method, and Q over the long videos."""
    quality = numbers.get("quality", {})
    of_long = numbers.get("long", {}).get("Q_by_block", {})
    num_axes = 3 if of_long else 2
    figure, axes = plt.subplots(1, num_axes, figsize=(5 * num_axes, 4))
    for at, objects in enumerate(("one", "several")):
        of_all = quality.get(objects, {})
        others = [method for method in of_all if method != "none"]
        for place, method in enumerate(others):
            mean, low, high = of_all[method]["Q_less"]["none"]
            reach = [[max(mean - low, 0)], [max(high - mean, 0)]]
            axes[0].errorbar(
                [mean], [place + 0.2 * at], xerr=reach, fmt="os"[at],
                color=f"C{at}", label=f"{objects} object{'s' * at}" if place == 0 else None,
            )  # fmt: skip
        if others:
            axes[0].set_yticks(range(len(others)), others)
            axes[0].set_ylim(-1, len(others) - 0.5)
    axes[0].axvline(0, color="grey", linewidth=0.8)
    axes[0].set(title="Q less that of plain SAM 2, 95 %", xlabel="difference")
    names = ("Q", "J", "absent_called_absent", "found_again")
    for at, (method, one) in enumerate(quality.get("several", {}).items()):
        places = np.arange(len(names)) + 0.15 * at
        heights = [one[name] or 0 for name in names]
        axes[1].bar(places, heights, width=0.15, label=method, color=f"C{at}")
        if at == 0:
            axes[1].plot([-0.1, 0.7], [one["Q_of_nothing"]] * 2, "k:", label="Q of nothing")
    axes[1].set_xticks(
        np.arange(len(names)) + 0.3, ["Q", "J, visible", "absent\ncalled so", "found\nagain"]
    )
    axes[1].set(title="all objects", ylim=(0, 1))
    for method, values in of_long.items():
        ends = 500 * np.arange(1, len(values) + 1)
        axes[2].plot(ends, np.array(values, float), marker=".", label=method)
        axes[2].set(title="Q of each 500 frames", xlabel="frame", ylim=(0, 1))
    for axis, place in zip(axes, ("lower right", "upper right", "lower left"), strict=False):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, loc=place, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
