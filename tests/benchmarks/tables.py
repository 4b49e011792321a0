"""Put measured numbers into the README and docs, each from its JSON; none is typed.

    python tests/benchmarks/tables.py

Text between `<!-- measured: NAME -->` and `<!-- /measured -->` is what the function NAME below
makes of the files in results/ (and of the testing model's evaluation). Run it after a benchmark.
`tests/test_docs.py` fails while a page says something else.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
EVALUATION = ROOT / "examples" / "train_testing_model" / "results" / "evaluation.json"

MARKED = re.compile(r"<!-- measured: (\w+) -->(.*?)<!-- /measured -->", re.DOTALL)

BLOCKS: dict[str, Callable[[], str]] = {}


def measured(block: Callable[[], str]) -> Callable[[], str]:
    BLOCKS[block.__name__] = block
    return block


@cache
def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def numbers(name: str) -> Any:
    return result(name)["numbers"]


def pages() -> list[Path]:
    """The README, every page of the site, and the testing model's page."""
    return [
        ROOT / "README.md",
        ROOT / "longsam" / "testing" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def filled(text: str) -> str:
    """A page with its measured parts made again."""

    def made(found: re.Match[str]) -> str:
        return f"<!-- measured: {found[1]} -->\n\n{BLOCKS[found[1]]()}\n\n<!-- /measured -->"

    return MARKED.sub(made, text)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(str(cell) for cell in cells)} |"

    head = list(head)
    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])


def gb(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes / 1000:.2f} GB"


def seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def source(name: str, script: str = "") -> str:
    return f"`python tests/benchmarks/{script or name}.py`, `tests/benchmarks/results/{name}.json`"


def machine(name: str) -> str:
    told = result(name)["environment"]
    gpu = ", ".join(told["gpus"]) or "no GPU"
    packages = told["versions"]
    return (
        f"Measured on {told['date']} at commit {told['commit'].split()[0]}: {told['cores']} cores "
        f"({told['cpu']}), {told['memory_gib']:.0f} GiB, {gpu}, Python {told['python']}, torch "
        f"{packages['torch'].split('+')[0]}, sam2 {packages['sam2']}. {source(name)}."
    )


# Length of the video ---------------------------------------------------------------------------


def _run(part: str, library: str, frames: int) -> Any:
    return next(
        run
        for run in numbers("length")[part]
        if run["library"] == library and run["num_frames_of_the_video"] == frames
    )


def _peak(run: Any) -> str:
    limit = numbers("length")["limit_gb"]
    return f"over {limit:g} GB" if run["stopped_above_the_limit"] else gb(run["peak_rss_mb"])


def _seconds(run: Any, key: str) -> str:
    return "none" if run[key] is None else seconds(run[key])


def _by_length(part: str, key: str, lengths: Iterable[int]) -> Iterable[list[str]]:
    for frames in lengths:
        cells = [f"{frames:,}"]
        for library in ("upstream", "longsam"):
            run = _run(part, library, frames)
            cells += [_peak(run), _seconds(run, key)]
        yield cells


@measured
def memory_in_short() -> str:
    head = (
        "frames", "upstream: memory", "first mask after", "longsam: memory", "first mask after"
    )  # fmt: skip
    return table(head, _by_length("first_mask", "seconds_to_first_mask", (300, 1000, 10_000)))


@measured
def first_mask() -> str:
    head = (
        "frames of the video", "upstream: peak memory", "upstream: first mask",
        "longsam: peak memory", "longsam: first mask",
    )  # fmt: skip
    lengths = sorted({run["num_frames_of_the_video"] for run in numbers("length")["first_mask"]})
    return table(head, _by_length("first_mask", "seconds_to_first_mask", lengths))


@measured
def full_pass() -> str:
    head = (
        "frames tracked", "upstream: peak memory", "upstream: time", "longsam: peak memory",
        "longsam: time",
    )  # fmt: skip
    lengths = sorted({run["num_frames_tracked"] for run in numbers("length")["full_pass"]})
    return table(head, _by_length("full_pass", "seconds", lengths))


@measured
def resident_over_a_pass() -> str:
    resident = _run("full_pass", "longsam", 10_000)["rss_mb_every_50_frames"]
    return (
        f"Over the 10,000 frames resident memory stayed between {min(resident)} and "
        f"{max(resident)} MB."
    )


@measured
def machine_length() -> str:
    return machine("length")


@measured
def soak() -> str:
    found = numbers("soak")
    resident = [value / 1e6 for value in found["resident_by_tenth"]]
    state, cpu = found["state_bytes_by_tenth"], found["cpu_ms_per_frame_by_tenth"]
    assert len(set(state)) == 1
    return (
        f"{found['frames']:,} frames of a 64 x 64 H.264 file in one pass (a small model with "
        "seeded "
        f"weights, masks written, {found['saves']} saves on the way): the state held {state[0]:,} "
        f"bytes in every tenth of the run. Resident memory grew by "
        f"{found['resident_slope_bytes_per_frame']:.0f} bytes a frame, from {resident[0]:.0f} to "
        f"{resident[-1]:.0f} MB. {max(found['open_files_by_tenth'])} files were open, and a frame "
        f"took {cpu[0]:.1f} ms of CPU in the first tenth and {cpu[-1]:.1f} ms in the last "
        f"({source('soak')}). Most of that growth was the writer's list of frames. It took 40 "
        "bytes "
        "a frame then and takes 8 now."
    )


@measured
def slow_consumer() -> str:
    names = {
        "av": "the default reader",
        "decord": '`reader="decord"`',
        "decord iterated": "decord, iterated as upstream's loader does",
    }
    rows = [
        (
            names[run["reader"]],
            f"{run['frames_read']:,}",
            f"{run['peak_mb_above_the_level_after_opening']:,.0f} MB",
        )
        for run in numbers("slow_consumer")
        if run["milliseconds_slept_per_frame"] == 30
    ]
    return table(("reader", "frames read", "peak memory above the level after opening"), rows)


# Masks on disk ----------------------------------------------------------------------------------


@measured
def writers() -> str:
    found = numbers("writers")
    cost, memory, size = (
        found["cost"]["writer_alone_ms_a_frame"], found["memory"], found["size"]
    )  # fmt: skip

    def growth(name: str) -> float:
        return memory[name]["most_mb_later"] - memory[name]["resident_mb_after_1000"]

    rows = [
        (
            f'`"{name}"`',
            f"{cost[name]:.0f} ms",
            f"{size[name]['bytes_a_frame'] / 1000:.1f} kB",
            f"{growth(name):.1f} MB",
        )
        for name in cost
    ]
    head = ("format", "time a frame", "size a frame", "memory, 1,000th to 20,000th frame")
    tracking = found["cost"]["seconds_a_frame"]["none"]
    return (
        table(head, rows)
        + "\n\n"
        + "Times and sizes are for three objects at 1080p. Tracking one such frame took "
        + f"{sum(tracking) / len(tracking):.1f} s (released tiny config at 1024 x 1024, two cores, "
        + "no GPU). The last column is the growth of resident memory over "
        + f"{memory['rle']['frames']:,}"
        + f" frames of a live source; without a writer it was {growth('none'):.1f} MB "
        + f"({source('writers')})."
    )


@measured
def page() -> str:
    found = numbers("page")
    frames, click, slow, timeline = (
        found[name] for name in ("frames", "click", "slow", "timeline")
    )  # fmt: skip

    def times(of: dict[str, float]) -> tuple[str, str]:
        return f"{of['median']:.0f} ms", f"{of['p95']:.0f} ms"

    rows = [
        ("the next frame", *times(frames["next_ms"])),
        ("the previous frame", *times(frames["previous_ms"])),
        ("a jump, until a key frame near it shows", *times(frames["jump_to_near_ms"])),
        ("a jump, until the frame itself shows", *times(frames["jump_to_exact_ms"])),
        ("a click's mask, on a frame that has rested", *times(click["rested_ms"])),
        ("a click's mask, right after a jump", *times(click["at_once_ms"])),
        ("the next frame, over 80 ms and 20 Mbit/s", *times(slow["next_ms"])),
        ("the timeline of 200,000 frames and 20 objects: between two pictures while it moves",
         *times(timeline["frame_interval_ms"])),
        ("the same: its own drawing", *times(timeline["script_ms"])),
    ]  # fmt: skip
    return (
        table(("what", "median", "95 % are below"), rows)
        + "\n\nAn hour of 1080p, H.264 with a key frame each 250, no pass running, the testing "
        + "model, a real browser on the same two cores "
        + f"({source('page')})."
        + (
            f" In {memory['minutes']:.0f} minutes of jumping, stepping and tracking, the server's "
            f"memory grew by {memory['megabytes_more']} MB after the first "
            f"{memory['settled_after_minutes']:.0f} minutes, from "
            f"{memory['megabytes_until_then']} MB."
            if (memory := found.get("memory"))
            else ""
        )
    )


@measured
def long_folders() -> str:
    found = numbers("writers")["resume"]
    return (
        f"With {found['frames']:,} frames in the folder, a writer that resumes opened it in "
        f"{found['writer_seconds']:.1f} s and a reader in {found['folder_seconds']:.1f} s. The "
        f"reader then holds {found['folder_bytes_a_frame']:.0f} bytes a frame "
        f"({source('writers')})."
    )


@measured
def exports() -> str:
    found = numbers("exports")
    rows = [
        (
            f"`{name}`",
            seconds(run["seconds"]),
            f"{run['disk_mb']:.0f} MB",
            f"{run['most_mb_later'] - run['resident_mb_after_1000']:.1f} MB",
        )
        for name, run in found.items()
        if isinstance(run, dict)
    ]
    head = ("format", f"{found['frames']:,} frames take", "on disk", "memory after 1,000 frames: +")
    return table(head, rows)


# Saving -----------------------------------------------------------------------------------------


@measured
def killed() -> str:
    found = numbers("saving")["killed"]
    assert found["frames_that_differ"] == 0
    return (
        f"A run of {found['frames']} frames with {found['objects']} objects was killed with "
        "SIGKILL "
        f"at {len(found['killed_at'])} random frames and resumed each time. No mask differed from "
        f"those of a run that was not killed ({source('saving')})."
    )


@measured
def kill_matrix() -> str:
    cells = numbers("kill_matrix")["cells"]
    formats = list(dict.fromkeys(cell.split(", ")[1] for cell in cells))
    rows = []
    for name in formats:
        runs = [cells[f"{way}, {name}"] for way in ("api", "cli")]
        psnr = [run["least_psnr"] for run in runs if "least_psnr" in run]
        rows.append(
            (
                name if name == "all" else f'`"{name}"`',
                *(run["kills"] for run in runs),
                sum(run["after_a_save"] for run in runs),
                sum(len(run["different"]) for run in runs),
                f"{min(psnr):.1f} dB" if psnr else "",
            )
        )
    head = (
        "format", "kills, Python", "kills, command line", "of these right after a save",
        "files that differ", "least PSNR of the overlay",
    )  # fmt: skip
    return table(head, rows)


@measured
def cost_of_saves() -> str:
    found = numbers("saving")["cost"]
    return (
        f"With the tiny config at 1024 x 1024, one object and a full window, a save has "
        f"{found['save_mib']:.0f} MiB and took {found['seconds_a_save']:.3f} s; a frame took "
        f"{found['seconds_a_frame']:.1f} s. A save every 500 frames is then "
        f"{100 * found['autosave_every_500_share_of_time']:.4f} % of the time ({source('saving')})."
    )


@measured
def many_prompts() -> str:
    found = numbers("saving")["prompts"]
    some, every = found["max_prompt_frames=16"], found["no limit"]

    def ends(run: Any, key: str) -> str:
        return f"{run[key][0]:,.0f} to {run[key][-1]:,.0f}"

    times, kib = "ms_for_two_frames_by_tenth", "state_kib_by_tenth"
    rows = [
        (name, f"{run['prompted']:,}", f"{ends(run, times)} ms", f"{ends(run, kib)} KiB")
        for name, run in (("`max_prompt_frames=16`", some), ("no limit", every))
    ]
    head = ("", "prompts", "a prompt and two frames, first to last tenth", "state, first to last")
    return table(head, rows)


# Detectors and review ---------------------------------------------------------------------------


@measured
def detections() -> str:
    found = numbers("detections")
    names = {"truth": "true boxes, made worse", "motion": "background subtraction"}
    rows = []
    for key, name in names.items():
        run = found[key]
        state, resident = run["most_state_mb_by_tenth"], run["most_resident_mb_by_tenth"]
        rows.append(
            (
                name,
                f"{run['stretches_found']} of {run['stretches']}",
                percent(run["visible_objects_with_a_mask"], 1),
                f"{run['objects']} ({run['false_objects']} false)",
                run["most_objects_at_once"],
                f"{min(state):.1f} to {max(state):.1f} MB",
                f"{min(resident):.0f} to {max(resident):.0f} MB",
            )
        )
    head = (
        "detector", "stretches found", "visible objects with a mask", "objects made",
        "most at once", "state, by tenth", "resident memory, by tenth",
    )  # fmt: skip
    return table(head, rows)


@measured
def everything() -> str:
    found = numbers("everything")
    height, width = found["frame"]
    rows = [
        (points, f"{run['seconds']:.1f} s", gb(run["more_mb"]))
        for points, run in found["by_points_per_batch"].items()
    ]
    head = ("`points_per_batch`", f"{found['points']} points take", "more memory meanwhile")
    return (
        table(head, rows)
        + f"\n\nOn a frame of {width} x {height}, on a busy machine of two cores "
        + f"({source('everything')})."
    )


@measured
def review() -> str:
    found = numbers("review")["summary"]
    return (
        f"On {found['videos']} generated hard videos, where {percent(1 - found['base_rate'])} of "
        f"masks were right, the review flagged {percent(found['flagged_share'])} of frames. Of the "
        f"flagged frames {percent(found['precision'])} were wrong. Of the spans in which a "
        "mask was "
        f"wrong, {percent(found['recall_of_bad_spans'])} had a flagged frame ({source('review')})."
    )


@measured
def preview() -> str:
    found = numbers("preview")
    most = max(turn["seconds_besides"] for turn in found["turns"])
    return (
        f"On a 1080p file of {found['frames']:,} frames ({found['bytes'] / 1e6:.0f} MB, two hours) "
        f"a preview with prompts on two frames took at most {most:.1f} s, without loading the "
        "model "
        f"({source('preview')})."
    )


# Speed ------------------------------------------------------------------------------------------


@measured
def against_upstream() -> str:
    rows = []
    for name, run in numbers("speed_cpu")["end"].items():
        if isinstance(run, dict):
            first, last = run["seconds_to_first_mask"], run["seconds_to_last_mask"]
            rows.append(
                (
                    name,
                    *(f"{first[who]:.2f} s" for who in ("upstream", "ours")),
                    *(f"{last[who]:.1f} s" for who in ("upstream", "ours")),
                    f"{run['ours_over_upstream']:.4f}",
                )
            )
    head = (
        "", "upstream: first mask", "longsam: first mask", "upstream: last mask",
        "longsam: last mask", "longsam / upstream",
    )  # fmt: skip
    return table(head, rows)


@measured
def sizes_of_models() -> str:
    names = {"t": "tiny", "s": "small", "b+": "base+", "l": "large"}
    profile = numbers("speed_cpu")["profile"]
    rows = []
    for key, name in names.items():
        run = profile[key]
        ours = run["ours"]
        rows.append(
            (
                name,
                f"{run['gflop_a_frame']:,.0f}",
                f"{run['upstream']['seconds_a_frame']:.1f} s",
                f"{ours['seconds_a_frame']:.1f} s",
                percent(ours["parts"]["image_encoder"] / ours["seconds_a_frame"]),
                percent(ours["parts"]["memory_attention"] / ours["seconds_a_frame"]),
                percent(ours["outside_encoder_and_track_step"], 1),
            )
        )
    head = (
        "model at 1024 x 1024", "GFLOP a frame", "upstream, a frame", "longsam, a frame",
        "of it image encoder", "memory attention", "neither encoder nor `track_step`",
    )  # fmt: skip
    return table(head, rows)


@measured
def fleet_killed() -> str:
    run = numbers("fleet")["killed"]
    return (
        f"`longsam fleet` tracked {run['videos']} videos, {run['frames']:,} frames in all, on two "
        f"workers of one thread. {run['workers_killed']} workers and {run['drivers_killed']} "
        f"driver were killed with SIGKILL, and {run['videos_resumed']} videos were resumed from a "
        "save. "
        f"{run['videos_with_the_masks_of_a_single_run']} of {run['videos']} videos have the files "
        f"of a single run, byte for byte ({source('fleet')})."
    )


@measured
def fleet_overhead() -> str:
    run = numbers("fleet")["overhead"]
    shares = [each["overhead"] for each in run["rounds"]]
    return (
        f"{run['videos']} videos on one worker took {percent(run['overhead'], 1)} more time than "
        f"single runs of one process, its start not counted (median of {len(shares)} rounds, "
        f"{percent(min(shares), 1)} to {percent(max(shares), 1)}; {source('fleet')})."
    )


@measured
def together_measured() -> str:
    run = numbers("together")["two"]
    same = sum(each["same_masks"] for each in run["rounds"])
    return (
        f"Measured: the {run['size']} model at {run['image_size']}, one object, "
        f"{run['frames']} frames. One process of one thread takes "
        f"{run['one_seconds_a_frame']:.1f} s a frame, two workers of one thread "
        f"{run['two_seconds_a_frame']:.1f} s: {run['times_faster']:.2f} times as fast (median of "
        f"{len(run['rounds'])} rounds; the masks were the same in {same}; {source('together')})."
    )


@measured
def together_on_paper() -> str:
    profile, handed = numbers("speed_cpu")["profile"], numbers("together")["transfer"]
    put, get = (handed["float32"][f"{name}_seconds"] for name in ("put", "get"))

    def frame(encoder: float, rest: float, objects: int, workers: int) -> float:
        if workers == 1:
            return encoder + objects * rest
        trackers = min(objects, workers)
        work = encoder + put + objects * rest + trackers * get
        return max(work / workers, -(-objects // trackers) * rest + get)

    counts, rows = (1, 2, 3, 4, 6, 8), []
    for key, name, objects in (("l", "large", 1), ("l", "large", 4), ("b+", "base+", 1),
                               ("t", "tiny", 1), ("t", "tiny", 4)):  # fmt: skip
        ours = profile[key]["ours"]
        encoder = ours["parts"]["image_encoder"]
        rest = ours["seconds_a_frame"] - encoder
        times = [frame(encoder, rest, objects, count) for count in counts]
        rows.append(
            (
                f"{name}, {objects} object{'s' * (objects > 1)}",
                f"{encoder:.2f} s",
                f"{rest:.2f} s",
                *(f"{times[0] / each:.1f}" for each in times),
            )
        )
    head = ("at 1024 x 1024", "E", "T", *(f"{n} worker{'s' * (n > 1)}" for n in counts))
    both = [handed[dtype] for dtype in ("float32", "bfloat16")]
    (mib, _, _), (half, _, _) = ((each["mib"], each["put_seconds"], each["get_seconds"])
                                 for each in both)  # fmt: skip
    return (
        table(head, rows)
        + "\n\nTimes faster than one worker, computed from E and T of one CPU machine "
        f"({source('speed_cpu', 'speed')}) and the time to hand over a frame's features: "
        f"{mib:.0f} MiB in float32 take {1000 * put:.0f} ms to put and {1000 * get:.0f} ms to get "
        f"within a machine, {half:.0f} MiB in bfloat16 {1000 * both[1]['put_seconds']:.0f} and "
        f"{1000 * both[1]['get_seconds']:.0f} ms ({source('together')}). On GPUs E and T are "
        "smaller by far and their ratio may be another; nothing was measured there. Between "
        f"machines, a network of 10 Gbit/s carries {1.25e9 / (mib * 2**20):.0f} frames/s of "
        "float32 features to one tracker, and twice as many of bfloat16."
    )


@measured
def policy_costs() -> str:
    run = numbers("policies")["time"]
    names = {
        "spaced": "spaced",
        "samurai": "SAMURAI",
        "dam4sam": "DAM4SAM",
        "sam2long_splits": "SAM2Long with three hypotheses on every frame",
    }
    times = [f"{name} {run[key]['over_none']:.2f}" for key, name in names.items()]
    return (
        f"CPU time of a frame with one object, beside upstream's rule: {', '.join(times)} times "
        "(the testing model, which is small, so a policy's own work weighs more than with a "
        f"released one; median of {len(run['samurai']['over_none_of_rounds'])} rounds; "
        f"{source('policies')})."
    )


POLICIES = {
    "none": "upstream's rule",
    "low_presence": "upstream's rule, presence above -1",
    "samurai": "SAMURAI",
    "dam4sam": "DAM4SAM",
    "sam2long": "SAM2Long",
    "spaced": "spaced (longsam's own)",
}


@measured
def policy_quality() -> str:
    quality = numbers("policies")["quality"]
    head = (
        "policy", "Q", "less upstream's, all objects", "the same, one object a video",
        "J, visible", "absent called absent", "found again",
    )  # fmt: skip
    rows = []
    for method, name in POLICIES.items():
        one, several = (quality[objects][method] for objects in ("one", "several"))
        less = [_between(of["Q_less"]["none"]) if method != "none" else "" for of in (several, one)]
        shares = [percent(several[key]) for key in ("absent_called_absent", "found_again")]
        rows.append([name, f"{several['Q']:.3f}", *less, f"{several['J']:.3f}", *shares])
    plain, spaced = (quality["several"][method] for method in ("none", "spaced"))
    one = quality["one"]["spaced"]

    def less(of: dict[str, Any]) -> str:
        return " and ".join(
            f"that of {POLICIES[method]} by {_between(of['Q_less'][method])}"
            for method in ("sam2long", "dam4sam")
        )

    return (
        table(head, rows)
        + f"\n\nQ of spaced exceeds {less(spaced)}; with one object a video, {less(one)}. Its "
        "share of absent frames called absent differs from that of upstream's rule by "
        f"{_between(spaced['absent_called_absent_less_none'])}."
        + f"\n\n{plain['num_videos']} videos of {quality['num_frames']} frames, all objects of "
        f"each; {plain['num_absent']:,} frames without the object, "
        f"{plain['num_returns']} returns; Q of showing nothing is "
        f"{plain['Q_of_nothing']:.3f}. In brackets the 95 % bounds of a paired bootstrap "
        f"over videos ({source('policies')})."
    )


@measured
def policy_long() -> str:
    run = numbers("policies")["long"]
    head = ("policy", "Q", "less upstream's", "of the first 500 frames", "of the last 500")
    rows = []
    for method, name in POLICIES.items():
        one, blocks = run["one"][method], run["Q_by_block"][method]
        less = _between(one["Q_less"]["none"]) if method != "none" else ""
        rows.append([name, f"{one['Q']:.3f}", less, f"{blocks[0]:.3f}", f"{blocks[-1]:.3f}"])
    plain = run["one"]["none"]
    return (
        table(head, rows)
        + f"\n\n{plain['num_videos']} videos of {run['num_frames']:,} frames, one object of each, "
        f"{plain['num_returns']} returns ({source('policies')})."
    )


def _between(difference: list[float]) -> str:
    mean, low, high = difference
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


@measured
def policy_bytes() -> str:
    held = numbers("policies")["quality"]["bytes"]
    parts = [
        f"{POLICIES[method]} {held[method]['policy_bytes_an_object']['greatest'] / 1e6:.2f} MB"
        for method in ("spaced", "samurai", "dam4sam", "sam2long")
    ]
    whole = held["none"]["state_bytes_an_object"]["greatest"] / 1e6
    return (
        "At the end of these videos a policy held, an object, at most "
        f"{', '.join(parts)}, beside {whole:.2f} MB of upstream's rule (the testing model, whose "
        "frames of memory are small)."
    )


@measured
def frame_on_a_cpu() -> str:
    profile = numbers("speed_cpu")["profile"]
    tiny, large = (profile[key]["ours"]["seconds_a_frame"] for key in ("t", "l"))
    return (
        f"SAM 2 itself is slow without a GPU: on two CPU cores a frame takes {tiny:.0f} s with the "
        f"tiny model and {large:.0f} s with the large one ([Speed](guides/speed.md)). Nothing has "
        "been measured on a GPU yet."
    )


@measured
def floor() -> str:
    profile = numbers("speed_cpu")["profile"]
    names = {
        "image_encoder": "image encoder",
        "memory_attention": "memory attention",
        "sam_mask_decoder": "mask decoder",
        "memory_encoder": "memory encoder",
    }
    rows = []
    for key, model in (("t", "tiny"), ("l", "large")):
        run = profile[key]
        took = run["ours"]["seconds_a_frame"]
        rows += [
            (
                model,
                name,
                f"{run['gflop'][part]:,.0f}",
                f"{run['ours']['parts'][part]:.2f} s",
                percent(run["gflop"][part] / run["ours"]["parts"][part] / rate(profile)),
            )
            for part, name in names.items()
        ]
        rest = took - sum(run["ours"]["parts"][part] for part in names)
        rows.append((model, "the rest", "", f"{rest:.2f} s", ""))
    head = ("model", "part of a frame", "GFLOP", "longsam", "share of the machine's rate")
    tiny, large = profile["t"], profile["l"]
    return (
        f"This machine multiplies large matrices at {rate(profile):.0f} GFLOP/s. At that rate a "
        f"frame takes at least {tiny['floor_seconds']:.1f} s with tiny and "
        f"{large['floor_seconds']:.1f} s with large; longsam takes {tiny['times_floor']:.2f} and "
        f"{large['times_floor']:.2f} times that. Where the time goes:\n\n" + table(head, rows)
    )


def rate(profile: dict[str, Any]) -> float:
    """GFLOP/s."""
    return float(profile["ceilings"]["gflops"])


def batched(case: str, count: int) -> dict[str, float]:
    """Times of upstream, ours and ours with batch_objects; empty where it was not measured."""
    found: dict[str, float] = (
        numbers("speed_cpu")["batch"].get(f"{case}, {count} objects", {}).get("seconds_a_frame", {})
    )
    return found


CASES = {
    "testing at 192": "testing model at 192",
    "t at 256": "tiny at 256",
    "t at 512": "tiny at 512",
    "t at 1024": "tiny at 1024",
}


def of_batches(over: str, under: str) -> str:
    counts = (1, 2, 4, 8, 16)
    rows = []
    for case, name in CASES.items():
        times = [batched(case, count) for count in counts]
        rows.append((name, *(f"{one[over] / one[under]:.2f}" if one else "" for one in times)))
    return table(("times as fast", *(f"{n} object{'s' * (n > 1)}" for n in counts)), rows)


@measured
def batches() -> str:
    return of_batches("ours", "ours, batch_objects")


@measured
def shared_work() -> str:
    return of_batches("upstream", "ours")


@measured
def bfloat16() -> str:
    dtype = numbers("speed_cpu")["dtype"]
    rows = [
        (
            name,
            f"{dtype[name]['IoU of the two, mean']:.3f}",
            f"{dtype[name]['J float32']:.3f}",
            f"{dtype[name]['J bfloat16']:.3f}",
        )
        for name in ("easy", "hard")
    ]
    head = ("videos", "IoU of the two masks", "J in float32", "J in bfloat16")
    return table(head, rows)


@measured
def compiled() -> str:
    found = numbers("speed_cpu")["compile"]
    again = max(
        run["graphs_compiled_after_it"] for run in found.values() if isinstance(run, dict)
        and "graphs_compiled_after_it" in run
    )  # fmt: skip
    warm_up = found["upstream, vos_optimized"]["seconds_of_warm_up"]
    speed = found["times_the_first"]
    return (
        f"On two CPU cores it gains little. With the tiny config at 256 it ran "
        f"{speed['ours, vos_optimized']:.2f} times as fast as upstream's eager loop; "
        "upstream's own "
        f"compiled model ran {speed['upstream, vos_optimized']:.2f} times as fast. Compiling took "
        f"{warm_up:.0f} s, and {again} graphs were compiled after the first 20 frames."
    )


@measured
def machine_speed() -> str:
    return machine("speed_cpu").replace(source("speed_cpu"), source("speed_cpu", "speed"))


@measured
def in_one_line() -> str:
    run = numbers("speed_cpu")["end"]["300 frames"]
    return (
        f"Without options longsam takes {run['ours_over_upstream']:.2f} times upstream's time over "
        "300 frames on a CPU. Nothing was measured on a GPU yet."
    )


# Beside others ----------------------------------------------------------------------------------

PEERS = {
    "longsam": "longsam",
    "upstream": "upstream",
    "upstream, async_loading_frames": "upstream, `async_loading_frames` (JPEGs)",
    "simple-sam2": "simple-sam2",
    "transformers": "transformers' Sam2Video, random weights, a wider model",
    "longsam, as wide": "longsam, random weights, as wide",
}


def _peers(frames: int) -> str:
    rows = []
    for name, run in numbers("peers")[f"{frames} frames"].items():
        j = "" if run["J"] is None else f"{run['J']:.3f}"
        written = f"{run['written_mb']:.0f} MB" if run["written_mb"] else "nothing"
        first = seconds(run["seconds_to_first_mask"])
        rate = f"{run['frames_per_second']:.1f}"
        rows.append((PEERS[name], first, rate, gb(run["peak_mb"]), written, j))
    head = (f"{frames:,} frames", "first mask after", "frames/s", "peak memory", "on disk", "J")
    return table(head, rows)


@measured
def peers_300() -> str:
    return _peers(300)


@measured
def peers_3000() -> str:
    return _peers(3000)


@measured
def peers_30000() -> str:
    return _peers(30_000)


@measured
def peers_versions() -> str:
    found = numbers("peers")["versions"]
    return ", ".join(f"{name} {version}" for name, version in found.items()) + "."


@measured
def machine_peers() -> str:
    return machine("peers")


# Exactness --------------------------------------------------------------------------------------


@measured
def exactness() -> str:
    calls = numbers("random_calls")
    counts = calls["counts"]
    long_pass = numbers("exactness")["long_pass"]
    clients = numbers("real_clients")
    assert long_pass["all_equal"]

    def equal(unit: str, name: str) -> str:
        runs = [run for run in clients.values() if unit in run]
        return f"{sum(run['equal'] for run in runs):,} of {sum(run[unit] for run in runs):,} {name}"

    rows = [
        (
            "random calls on both predictors",
            f"{counts['calls']:,} calls, {counts['exact']:,} of them compared bit for bit: "
            f"{calls['differences']} differences",
            source("random_calls"),
        ),
        (
            "one long pass, forward and back",
            f"{long_pass['frames_compared']:,} frames of {long_pass['objects']} objects: all equal",
            source("exactness"),
        ),
        ("upstream's VOS tool", f"{equal('pngs', 'PNGs')} equal", source("real_clients")),
        (
            "the calls of upstream's video notebook, with `memory_window=200` and with `rewind`",
            f"{equal('masks', 'masks')} equal",
            source("real_clients"),
        ),
        (
            "killed and resumed",
            f"{numbers('saving')['killed']['frames']} frames, "
            f"{numbers('saving')['killed']['frames_that_differ']} differ",
            source("saving"),
        ),
    ]
    return table(("what was compared", "result", "script and result"), rows)


@measured
def accuracy() -> str:
    rows = []
    for video in numbers("accuracy")["videos"]:
        rate = video["frames_per_second"]
        rows.append(
            (
                f"{video['difficulty']}, seed {video['seed']}",
                f"{video['logits_equal_frames']:,} of {video['frames']:,}",
                f"{rate['upstream']:.0f}",
                f"{rate['longsam']:.0f}",
            )
        )
    head = ("video", "frames with equal logits", "upstream, frames/s", "longsam, frames/s")
    return table(head, rows)


@measured
def testing_model() -> str:
    summary = json.loads(EVALUATION.read_text())["summary"]

    def j(difficulty: str) -> str:
        values = [f"{value:.2f}" for value in summary[difficulty]["J_mean"].values()]
        low, high = min(values), max(values)
        return low if low == high else f"{low} to {high}"

    return (
        f"On videos that it was never trained on, mean J is {j('easy')} on easy ones and "
        f"{j('hard')} on hard ones (`python examples/train_testing_model/evaluate.py`, "
        "`examples/train_testing_model/results/evaluation.json`)."
    )


@measured
def testing_model_figures() -> str:
    summary = json.loads(EVALUATION.read_text())["summary"]
    each = (summary["easy"], summary["hard"])

    def prompts(key: str) -> list[str]:
        return [" / ".join(f"{value:.2f}" for value in of[key].values()) for of in each]

    last = [
        ", ".join(f"{video['click']:.2f}" for video in of["long_J_last_500_frames"]) for of in each
    ]
    absent = [
        " / ".join(percent(value) for value in of["absent_called_absent"].values())
        + f" of {of['absent_frames']:,}"
        for of in each
    ]
    rows = [
        ("J over 300 frames, mean of 30 videos", *prompts("J_mean")),
        ("the lowest of the 30", *prompts("J_lowest")),
        ("J over 5,000 frames, mean of 5 videos", *prompts("long_J_mean")),
        ("the last 500 of 5,000, each video, click", *last),
        ("frames without the object on which none is shown", *absent),
    ]
    return table(("click / box / mask", "easy", "hard"), rows)


# Faults and installations -----------------------------------------------------------------------


@measured
def fuzz() -> str:
    rows = []
    for name, what in (
        ("fuzz", "videos, images, saves, memory banks"),
        ("fuzz_masks", "mask folders, prompts in JSON, detections"),
    ):
        found = numbers(name)
        rows.append(
            (
                what,
                f"{sum(found['ends'].values()):,}",
                len(found["not_good"]),
                f"{found['most_mib_above_the_start']} MiB",
                source(name, "fuzz"),
            )
        )
    head = (
        "damaged", "cases", "crashed, hung or wrong error", "most memory above the start",
        "script and result",
    )  # fmt: skip
    return table(head, rows)


@measured
def installs() -> str:
    rows = []
    for name, run in numbers("installs").items():
        assert not run["not_passed"]
        versions = run["versions"]
        rows.append(
            (
                name.split("+")[0],
                versions["torch"],
                versions["numpy"],
                versions["av"],
                run["ended"].split(" in ")[0],
            )
        )
    return table(("Python", "torch", "numpy", "av", "the whole suite, from the wheel"), rows)


def main() -> None:
    for page in pages():
        text = page.read_text()
        new = filled(text)
        if new != text:
            page.write_text(new)
            print(f"changed: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
