"""Replace `<!-- result: NAME -->` in pages with a table of `benchmarks/results/NAME.json`.

A result without a file is shown as not measured. `<!-- gpu results -->` becomes the tables of `benchmarks/results/gpu.jsonl`,
the results of `python -m benchmarks.gpu`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.gpu.results import read_results

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace every marker on a page."""
    markdown = re.sub(r"<!-- gpu results -->", lambda _: show_gpu(), markdown)
    return re.sub(r"<!-- result: ([\w-]+) -->", lambda marker: show(marker[1]), markdown)


def show_gpu() -> str:
    """The stages of `benchmarks.gpu` with their summaries, and a table of each stage that compares speeds."""
    results = read_results(RESULTS / "gpu.jsonl")
    if not results:
        return "**No GPU results have been recorded yet.**"
    rows = [["stage", "outcome", "seconds", "result"]]
    for name, result in results.items():
        seconds = "" if result.seconds is None else f"{result.seconds:.0f}"
        rows.append([f"`{name}`", result.status, seconds, result.summary.replace("|", "\\|")])
    parts = [table(rows)]
    for name, result in results.items():
        speeds = [row for row in result.rows if "median_milliseconds" in row]
        if speeds:
            parts.append(f"`{name}`: {speeds[-1]['what']}, {speeds[-1]['side']}², batch size {speeds[-1]['batch']}")
            parts.append(table(speed_rows(speeds[-1])))
    (machine,) = [row for row in results["machine"].rows if "copy_gigabytes_per_second" in row]
    versions = f"torch {machine['torch']}, Triton {machine['triton']}, Python {machine['python']}, {machine['date']}"
    return "\n\n".join([*parts, f"*{machine['device']}, {versions}; all rows in `benchmarks/results/gpu.jsonl`.*"])


def show(name: str) -> str:
    """A result as a Markdown table, followed by the machine that it was measured on."""
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
    elif "load" in result:
        rows = load_rows(result)
    elif "cases" in result:
        rows = plan_rows(result)
    else:
        rows = speed_rows(result)
    machine = f"{result['device']}, torch {result['torch']}, Python {result['python']}, {result['date']}"
    return f"{table(rows)}\n\n*{machine}; raw times in `benchmarks/results/{name}.json`.*"


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the header."""
    header, *body = rows
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def speed_rows(result: dict[str, Any]) -> list[list[str]]:
    """Speed of a step or a translation: one row per variant."""
    rate = "pairs_per_second" if "pairs_per_second" in result else "images_per_second"
    header = ["", "median, ms", rate.replace("_per_second", "/s"), "speedup over official"]
    header += ["first image, ms"] if "milliseconds_to_first_image" in result else []
    header += ["peak, MB"] if "peak_megabytes" in result else []
    header += ["reserved, MB"] if "reserved_megabytes" in result else []
    rows = [header]
    for variant, median in result["median_milliseconds"].items():
        row = [variant.replace("peer", "official"), f"{median:,.1f}", f"{result[rate][variant]:,.2f}"]
        ratio = result.get("times_as_fast_as_peer", {}).get(variant)
        row.append("" if ratio is None else f"{ratio:.2f}")
        for extra in ("milliseconds_to_first_image", "peak_megabytes", "reserved_megabytes"):
            if extra in result:
                value = result[extra].get(variant)
                row.append("" if value is None else f"{value:,.0f}")
        rows.append(row)
    return rows


def scaling_rows(result: dict[str, Any]) -> list[list[str]]:
    """Scaling with the image size: one row per size."""
    rows = [[f"size ({result['variant']})", "ms", "ns/pixel", "peak, MB"]]
    for side, case in result["sides"].items():
        times = (f"{case['milliseconds']:,.0f}", f"{case['nanoseconds_per_pixel']:,.0f}")
        rows.append([f"{side}²", *times, f"{case['peak_megabytes']:,.0f}"])
    return rows


def data_rows(result: dict[str, Any]) -> list[list[str]]:
    """Cost of data loading: one row per cache."""
    rows = [["cache", "batch, ms", "step with loading, ms", "step with preloaded batches, ms", "ratio"]]
    for mode, case in result["modes"].items():
        step = (f"{case['step']:.1f}", f"{case['preloaded']:.1f}", f"{case['ratio']:.2f}")
        rows.append([mode, f"{case['batch']:.2f}", *step])
    return rows


def load_rows(result: dict[str, Any]) -> list[list[str]]:
    """Steps on shared cores: one row per setting of OpenMP."""
    quiet, busy = result["load"]["quiet"], result["load"]["busy"]
    rows = [["settings", "step, ms", f"beside {result['processes']} busy processes, ms", "ratio"]]
    for name, value in quiet.items():
        rows.append([name, f"{value:,.0f}", f"{busy[name]:,.0f}", f"{busy[name] / value:.1f}"])
    return rows


def plan_rows(result: dict[str, Any]) -> list[list[str]]:
    """Predictions: one row per recipe."""
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
    """Tiled translation: one row per size and method."""
    rows = [
        [
            result["network"],
            "seconds",
            "peak, MB",
            "bound, MB",
            "relative difference",
            "largest difference, 8-bit levels",
        ]
    ]
    for case in result["tiled"]:
        names = {
            "whole": "whole",
            "tiles": f"tiles of {case['tile']}",
            "tiles_anew": "same, without a cache",
            "separate_tiles": "independent tiles",
        }
        for method, name in names.items():
            if method not in case:
                continue
            values = case[method]
            keys = ("seconds", "peak_megabytes", "bound_megabytes")
            cells = [f"{values[key]:,.0f}" if key in values else "" for key in keys]
            relative, largest = values.get("relative_difference"), values.get("largest_difference")
            cells.append("" if relative is None else f"{relative:.1e}")
            cells.append("" if largest is None else f"{largest * 127.5:,.3g}")
            rows.append([f"{case['side']}², {name}", *cells])
    return rows


def serving_rows(result: dict[str, Any]) -> list[list[str]]:
    """A server under load: one row per load, with the memory of the server process."""
    header = [f"{result['clients']} clients send", "responses", "errors", "per second", "response, median", "95 %"]
    rows = [[*header, "with queueing, median", "95 %", "server before, MB", "peak", "after"]]
    memory = result["server_megabytes"]
    sizes = (("before", "peak", "after"), ("after", "peak_with_largest", "after_largest"))
    for (load, values), keys in zip(result["loads"].items(), sizes, strict=True):
        responses = ", ".join(f"{count:,} × HTTP {status}" for status, count in values["answers"].items())
        times = [*values["seconds_to_answer"].values(), *values["seconds_with_waiting_to_be_let_in"].values()]
        cells = [*(f"{seconds:.2f} s" for seconds in times), *(f"{memory[key]:,.0f}" for key in keys)]
        rows.append([load, responses, str(len(values["errors"])), f"{values['per_second']:.1f}", *cells])
    return rows


def fuzz_rows(result: dict[str, Any]) -> list[list[str]]:
    """Fuzzing: one row per reader."""
    rows = [["reader", "executions", "seconds", "faults", "faults after the fixes"]]
    for target, values in result["targets"].items():
        faults = {False: 0, True: 0}
        for stretch in values["stretches"]:
            faults[not stretch["code"].startswith("before")] += len(stretch["findings"])
        counts = (str(faults[False]), str(faults[True]))
        rows.append([f"{target}s", f"{values['executions']:,}", f"{values['seconds']:,.0f}", *counts])
    return rows


def soak_rows(result: dict[str, Any]) -> list[list[str]]:
    """Soak test: one row per run, without interruptions and with repeated kills."""
    rows = [
        [
            "run",
            "sessions",
            "minutes",
            "steps",
            "MB/h, second half",
            "files/h",
            "steps per CPU second, first half",
            "second half",
            "differences",
        ]
    ]
    for run, values in result["runs"].items():
        for kind in ("undisturbed", "disturbed"):
            part = values[kind]
            speeds = [part[f"rate_of_{half}_halves"].get("per_processor_second") for half in ("first", "second")]
            slopes = [part["slope_own_megabytes_per_hour_in_second_halves"], part["slope_handles_per_hour"]]
            cells = [str(part["lives"]), f"{part['minutes']:.0f}", f"{part['steps']:,}"]
            cells += ["" if slope is None else f"{slope:+.1f}" for slope in slopes]
            cells += ["" if speed is None else f"{speed:.2f}" for speed in speeds]
            cells.append("" if kind == "undisturbed" else str(len(values["differences"])))
            rows.append([f"{run}, {kind}", *cells])
    return rows
