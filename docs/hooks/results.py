"""Puts the figures of benchmarks/results into pages: `<!-- result: NAME -->` becomes the table of NAME.json.

So no figure is written by hand. What has no file is said to be not measured.
"""

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace every mark of a page."""
    return re.sub(r"<!-- result: ([\w-]+) -->", lambda mark: show(mark[1]), markdown)


def show(name: str) -> str:
    """A result as a table, with the machine below."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return "*Not measured yet.*"
    result = json.loads(path.read_text(encoding="utf-8"))
    if "sides" in result:
        rows = scaling_rows(result)
    elif "modes" in result:
        rows = data_rows(result)
    elif "targets" in result:
        rows = fuzz_rows(result)
    elif "lives" in result:
        rows = soak_rows(result)
    elif "tiled" in result:
        rows = tile_rows(result)
    elif "loads" in result:
        rows = serving_rows(result)
    elif "cases" in result:
        rows = plan_rows(result)
    else:
        rows = speed_rows(result)
    machine = f"{result['device']}, torch {result['torch']}, Python {result['python']}, {result['date']}"
    return f"{table(rows)}\n\n*{machine}; raw times in `benchmarks/results/{name}.json`.*"


def table(rows: list[list[str]]) -> str:
    """Markdown of rows, the first of which is the head."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def speed_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of a step or a translation: one row for each way."""
    rate = "pairs_per_second" if "pairs_per_second" in result else "images_per_second"
    head = ["", "median, ms", rate.replace("_per_second", "/s"), "times as fast as the official one"]
    head += ["to the first image, ms"] if "milliseconds_to_first_image" in result else []
    head += ["peak, MB"] if "peak_megabytes" in result else []
    rows = [head]
    for way, median in result["median_milliseconds"].items():
        row = [way if way != "peer" else "official", f"{median:,.1f}", f"{result[rate][way]:,.2f}"]
        ratio = result.get("times_as_fast_as_peer", {}).get(way)
        row.append("" if ratio is None else f"{ratio:.2f}")
        for extra in ("milliseconds_to_first_image", "peak_megabytes"):
            if extra in result:
                value = result[extra].get(way)
                row.append("" if value is None else f"{value:,.0f}")
        rows.append(row)
    return rows


def scaling_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of growing images: one row for each side."""
    rows = [[f"side ({result['variant']})", "ms", "ns a pixel", "peak, MB"]]
    for side, found in result["sides"].items():
        figures = (f"{found['milliseconds']:,.0f}", f"{found['nanoseconds_per_pixel']:,.0f}")
        rows.append([f"{side}²", *figures, f"{found['peak_megabytes']:,.0f}"])
    return rows


def data_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of what data cost: one row for each cache."""
    rows = [["cache", "a batch, ms", "a step with it, ms", "a step without data, ms", "ratio"]]
    for mode, found in result["modes"].items():
        step = (f"{found['step']:.1f}", f"{found['preloaded']:.1f}", f"{found['ratio']:.2f}")
        rows.append([mode, f"{found['batch']:.2f}", *step])
    return rows


def plan_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of predictions: one row for each recipe."""
    rows = [["recipe", "memory, predicted", "measured", "time, predicted", "measured"]]
    for case in result["cases"]:
        memory, time = case["memory"], case["time"]
        measured = sorted(time["measured_seconds"])
        rows.append(
            [
                f"`{case['case']}`",
                f"{memory['predicted_bytes'] / 1e9:.2f} GB",
                f"{memory['measured_bytes'] / 1e9:.2f} GB",
                f"{time['predicted_seconds'][1]:.2f} s",
                f"{measured[len(measured) // 2]:.2f} s",
            ]
        )
    return rows


def tile_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of images in tiles: one row for each way of each size."""
    rows = [
        [result["network"], "seconds", "peak, MB", "bound, MB", "relative difference", "largest difference in levels"]
    ]
    for case in result["tiled"]:
        names = {
            "whole": "whole",
            "tiles": f"tiles of {case['tile']}",
            "tiles_anew": "the same, nothing kept",
            "separate_tiles": "tiles by themselves",
        }
        for way, name in names.items():
            if way not in case:
                continue
            found = case[way]
            figures = [
                f"{found[key]:,.0f}" if key in found else "" for key in ("seconds", "peak_megabytes", "bound_megabytes")
            ]
            relative, largest = found.get("relative_difference"), found.get("largest_difference")
            figures.append("" if relative is None else f"{relative:.1e}")
            figures.append("" if largest is None else f"{largest * 127.5:,.3g}")
            rows.append([f"{case['side']}², {name}", *figures])
    return rows


def serving_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of a server: one row for each load, with what its process grew to in it."""
    head = [f"{result['clients']} clients send", "answers", "errors", "a second", "an answer, median", "95 %"]
    rows = [[*head, "with waiting, median", "95 %", "server before, MB", "peak", "after"]]
    memory = result["server_megabytes"]
    sizes = (("before", "peak", "after"), ("after", "peak_with_largest", "after_largest"))
    for (load, found), keys in zip(result["loads"].items(), sizes, strict=True):
        answers = ", ".join(f"{count:,} of {status}" for status, count in found["answers"].items())
        times = [*found["seconds_to_answer"].values(), *found["seconds_with_waiting_to_be_let_in"].values()]
        figures = [*(f"{seconds:.2f} s" for seconds in times), *(f"{memory[key]:,.0f}" for key in keys)]
        rows.append([load, answers, str(len(found["errors"])), f"{found['per_second']:.1f}", *figures])
    return rows


def fuzz_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of fuzzing: one row for each reader."""
    rows = [["reader of", "executions", "seconds", "found", "found after mending"]]
    for target, found in result["targets"].items():
        before, after = (
            sum(
                len(stretch["findings"]) for stretch in found["stretches"] if (stretch["code"] == "mended") == is_mended
            )
            for is_mended in (False, True)
        )
        rows.append([f"{target}s", f"{found['executions']:,}", f"{found['seconds']:,.0f}", str(before), str(after)])
    return rows


def soak_rows(result: dict[str, Any]) -> list[list[str]]:
    """Of hours of training: one row for each life of each run, undisturbed and killed again and again."""
    rows = [
        [
            "run",
            "lives",
            "minutes",
            "steps",
            "MB/h, later",
            "files/h",
            "steps/s of CPU",
            "in second halves",
            "differences",
        ]
    ]
    for run, found in result["runs"].items():
        for kind in ("undisturbed", "disturbed"):
            life = found[kind]
            rates = [life[f"rate_of_{part}_halves"].get("per_processor_second") for part in ("first", "second")]
            slopes = [life["slope_own_megabytes_per_hour_in_second_halves"], life["slope_handles_per_hour"]]
            figures = ["" if figure is None else f"{figure:+.1f}" for figure in slopes]
            figures += ["" if rate is None else f"{rate:.2f}" for rate in rates]
            unlike = "" if kind == "undisturbed" else str(len(found["differences"]))
            rows.append(
                [f"{run}, {kind}", str(life["lives"]), f"{life['minutes']:.0f}", f"{life['steps']:,}", *figures, unlike]
            )
    return rows
