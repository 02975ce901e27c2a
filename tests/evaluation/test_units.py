"""Scores are in the unit of the domain: in tables, files, pages, logs and cards."""

import contextlib
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import make_dataset

import gantoolkit
from gantoolkit.data.encoding import encoding_of
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.evaluation.ablation import Ablation, Row, table_cells
from gantoolkit.evaluation.ablation.results import MetricChoice
from gantoolkit.evaluation.ablation.rows import plain_rows
from gantoolkit.evaluation.ablation.trials import Trial
from gantoolkit.evaluation.references import score_references
from gantoolkit.evaluation.scoring import choose_metrics, score_run
from gantoolkit.evaluation.tables import Column, describe_differences, format_number, list_columns, read_scores
from gantoolkit.hub.card import make_card
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs.health import examine

L1 = choose_metrics(["l1"], {})
LOW, HIGH = -1024.0, 3071.0


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Pairs: A is gray pictures, B is arrays of values from -1024 to 3071."""
    root = make_dataset(tmp_path / "scans", count_A=4, count_B=4, test=4)
    draw = np.random.default_rng(0)
    for folder in (root / "trainB", root / "testB"):
        for path in sorted(folder.iterdir()):
            np.save(path.with_suffix(".npy"), draw.uniform(LOW, HIGH, (36, 40)).astype(np.float32))
            path.unlink()
    return root


@pytest.fixture
def recipe(tiny: Recipe) -> Recipe:
    return tiny.swap(
        {
            "data.channels_A": 1,
            "data.channels_B": 1,
            "data.range_B": [LOW, HIGH],
            "data.unit_B": "HU",
            "identity_weight": 0.0,
        }
    )


@pytest.fixture
def run(recipe: Recipe, scans: Path, tmp_path: Path) -> Run:
    return gantoolkit.train(recipe, scans, tmp_path / "run", device="cpu", stop_at=1)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mean_differences(run: Run, direction: str) -> list[float]:
    """The mean absolute difference of each test image in the values of files, with numpy."""
    images, source, target = EvaluationImages.open(run.data, run.recipe.data), direction[0], direction[-1]
    encoding, translator = encoding_of(run.recipe.data, target), run.translator(direction, device="cpu")
    differences = []
    for index in range(4):
        output = encoding.from_floats(translator.translate_tensor(images.read(source, [index]))[0])
        truth = encoding.from_floats(images.read(target, [index])[0])
        differences.append(float(np.abs(output.astype(np.float64) - truth).mean()))
    return differences


def test_differences_are_in_the_unit_of_their_domain(run: Run) -> None:
    scores = score_run(run, EvaluationImages.open(run.data, run.recipe.data), L1, device="cpu")
    forward, backward = scores.directions["A2B"], scores.directions["B2A"]
    for result, unit, other in ((forward, "HU", "levels of 255"), (backward, "levels of 255", "HU")):
        expected = mean_differences(run, result.direction)
        l1 = result.scores["l1"]
        assert l1.value == pytest.approx(np.mean(expected), rel=1e-5)
        assert l1.low < l1.value < l1.high  # type: ignore[operator]
        assert result.per_image["l1"] == pytest.approx(expected, rel=1e-5)
        assert (l1.unit, result.scores["rec_l1"].unit) == (unit, other)
    assert forward.scores["l1"].value > 255  # random values in a range of 4095


@pytest.mark.parametrize(
    ("changes", "unit", "scale"),
    [
        ({}, "HU", 2047.5),
        ({"data.unit_B": ""}, "values from -1024 to 3071", 2047.5),
        ({"data.unit_B": "", "data.range_B": "16-bit"}, "levels of 65535", 32767.5),
        ({"data.unit_B": "", "data.range_B": "8-bit"}, "levels of 255", 127.5),
    ],
    ids=["unit", "range", "16-bit", "8-bit"],
)
def test_each_encoding_has_a_unit(changes: dict, unit: str, scale: float, recipe: Recipe, scans: Path) -> None:
    settings = recipe.swap(changes).data
    encoding = encoding_of(settings, "B")
    for path in (scans / "testB").iterdir():
        values = np.load(path)
        if encoding.bits:
            values = ((values - LOW) / (HIGH - LOW) * encoding.high).astype(encoding.dtype)
        np.save(path, values)
    images = EvaluationImages.open(scans, settings)
    (other,) = (
        scores for scores in score_references(images, ["A2B"], L1) if scores.name == "ground truth of another image"
    )
    truths = images.read("B", range(4))
    l1 = other.directions["A2B"].scores["l1"]
    assert l1.unit == unit
    assert l1.value == pytest.approx(scale * float((truths - truths.roll(2, 0)).abs().mean()), rel=1e-5)


def test_values_of_a_range_are_not_rounded_to_8_bits(recipe: Recipe, scans: Path) -> None:
    """Differences of less than a 255th of the range count, here 1 HU of 4095."""
    for path in (scans / "testB").iterdir():
        np.save(path, np.full((36, 40), 100 + int(path.stem), dtype=np.float32))
    images = EvaluationImages.open(scans, recipe.data)
    results = {scores.name: scores.directions["A2B"] for scores in score_references(images, ["A2B"], L1)}
    assert results["ground truth of another image"].scores["l1"].value == pytest.approx(2, rel=1e-3)
    assert results["ground truth"].scores["l1"].value == 0


def test_the_input_is_compared_as_values_of_the_same_unit(recipe: Recipe, scans: Path) -> None:
    shutil.rmtree(scans / "testA")
    shutil.copytree(scans / "testB", scans / "testA")
    changes = {"data.range_A": [LOW, 2 * HIGH], "data.unit_A": "HU"}
    images = EvaluationImages.open(scans, recipe.swap(changes).data)
    results = {scores.name: scores.directions["A2B"] for scores in score_references(images, ["A2B"], L1)}
    assert results["input"].scores["l1"].value == pytest.approx(0, abs=1e-3)
    images = EvaluationImages.open(scans, recipe.swap({**changes, "data.unit_A": "mGy"}).data)
    results = {scores.name: scores.directions["A2B"] for scores in score_references(images, ["A2B"], L1)}
    assert "input" not in results
    assert results["input, mapped from -1024 … 6142 to -1024 … 3071"].scores["l1"].value > 100


def test_tables_files_and_pages_carry_units(command, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    code, output, stderr = command("evaluate", run.path, "--out", out, "--device", "cpu")
    assert code == 0, stderr
    for word in ("l1 (HU)", "rec_l1 (HU)", "l1 (levels of 255)", "psnr (dB)", "ssim  "):
        assert word in output
    assert "read images differently" not in output
    (scores, *_) = read_scores(out / "scores.json")
    l1 = scores.directions["A2B"].scores["l1"]
    assert l1.unit == "HU"
    (row,) = [
        row
        for row in read_csv(out / "scores.csv")
        if (row["name"], row["direction"], row["score"]) == ("run", "A2B", "l1")
    ]
    assert (float(row["value"]), row["unit"]) == (l1.value, "HU")
    images = [row for row in read_csv(out / "images.csv") if (row["name"], row["direction"]) == ("run", "A2B")]
    assert {row["l1_unit"] for row in images} == {"HU"}
    assert {row["rec_l1_unit"] for row in images} == {"levels of 255"}
    assert np.mean([float(row["l1"]) for row in images]) == pytest.approx(l1.value)
    page = (out / "report.html").read_text()
    assert '<th scope="col">l1 (HU)</th>' in page
    assert "Ranked by l1 (HU) per image" in page
    assert any(f"{value:.1f} HU, " in page for value in scores.directions["A2B"].per_image["l1"])
    card = make_card(run, scores=out).text
    assert f"| `A2B` | `l1` | {l1.value:.1f} | `HU` | [" in card
    assert "values from -1024 to 3071 HU" in card


def test_runs_of_different_units_have_columns_of_their_own(
    command, run: Run, recipe: Recipe, scans: Path, tmp_path: Path
) -> None:
    wide = recipe.swap({"data.range_B": [LOW, 2 * HIGH], "data.unit_B": "mHU"})
    other = gantoolkit.train(wide, scans, tmp_path / "wide", device="cpu", stop_at=1)
    out = tmp_path / "scores"
    code, output, _ = command("evaluate", run.path, other.path, "--out", out, "--metric", "l1", "--device", "cpu")
    assert code == 0
    scores = read_scores(out / "scores.json")
    names = [str(column) for column in list_columns(scores, "A2B")]
    assert names == ["l1 (HU)", "l1 (mHU)", "rec_l1 (levels of 255)"]
    (sentence,) = describe_differences(scores, "A2B")
    assert (
        "run: gray, 8-bit → 1 channel, values from -1024 to 3071 HU; wide: gray, 8-bit → 1 channel, values" in sentence
    )
    assert sentence in output
    page = (out / "report.html").read_text()
    assert "these runs read images differently" in page
    row = page[page.index('<th scope="row">wide</th>') :].partition("</tr>")[0]
    assert row.count('<td class="number"></td>') == 1  # in HU
    truths = [entry for entry in scores if entry.name.startswith("ground truth, for ")]
    assert [(entry.name, entry.directions["A2B"].scores["l1"].unit) for entry in truths] == [
        ("ground truth, for run", "HU"),
        ("ground truth, for wide", "mHU"),
    ]


def test_values_in_the_log_have_units_and_the_best_step_does_not_depend_on_them(
    recipe: Recipe, scans: Path, tmp_path: Path
) -> None:
    measured = recipe.swap({"metric": "l1", "training.evaluate_every": 1, "optimizer.lr": 0.01})
    unnamed = measured.swap({"data.unit_B": "", "data.range_B": [0.0, 1.0]})
    runs = [gantoolkit.train(measured, scans, tmp_path / "run", device="cpu", stop_at=4)]
    for folder in (scans / "trainB", scans / "testB"):
        for path in folder.iterdir():
            np.save(path, (np.load(path) - np.float32(LOW)) / np.float32(HIGH - LOW))
    runs.append(gantoolkit.train(unnamed, scans, tmp_path / "unnamed", device="cpu", stop_at=4))
    logs = []
    for run, unit in zip(runs, ("HU", "values from 0 to 1"), strict=True):
        rows = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
        logs.append([row for row in rows if "evaluation/A2B/l1" in row])
        assert {row["evaluation/A2B/l1_unit"] for row in logs[-1]} == {unit}
        assert {row["evaluation/B2A/l1_unit"] for row in logs[-1]} == {"levels of 255"}
        assert unit in {row["evaluation/A2B/l1_unit"] for row in read_csv(run.folder.table)}
        assert run.folder.report.read_text().count("<!-- l1 (") == 2  # a chart for each unit
        assert f"| `l1` | {format_number(logs[-1][-1]['evaluation/A2B/l1'])} | `{unit}` |" in make_card(run).text
    for first, second in zip(*logs, strict=True):
        assert first["evaluation/A2B/l1"] == pytest.approx((HIGH - LOW) * second["evaluation/A2B/l1"], rel=1e-3)
    shares = [row["evaluation/A2B/l1"] / (HIGH - LOW) + row["evaluation/B2A/l1"] / 255 for row in logs[0]]
    best = logs[0][int(np.argmin(shares))]["step"]
    assert [run.translator("A2B", best=True, device="cpu").generator.step for run in runs] == [best, best]


def test_ablation_tables_have_a_column_for_each_unit() -> None:
    rows = [
        Row("one", "A2B", {Column("l1", "HU"): [800.0, 900.0]}, {}, ()),
        Row("two", "A2B", {Column("l1", "levels of 255"): [53.0], Column("ssim"): [0.5]}, {}, ()),
    ]
    heading, lines = table_cells(rows)
    assert heading == ["", "seeds", "l1 (HU)", "l1 (levels of 255)", "ssim"]
    assert lines == [["one", "2", "850.0", "", ""], ["two", "1", "", "53.0", "0.500"]]
    plain = [(row["recipe"], row["score"], row["unit"], row["mean"]) for row in plain_rows(rows)]
    assert plain == [("one", "l1", "HU", 850.0), ("two", "l1", "levels of 255", 53.0), ("two", "ssim", "", 0.5)]


def test_quantizing_gives_the_values_of_a_file(recipe: Recipe) -> None:
    draw = torch.Generator().manual_seed(0)
    images = 3 * torch.rand(3, 8, 9, generator=draw) - 1.5
    for settings in (recipe.data, recipe.swap({"data.unit_B": "", "data.range_B": "16-bit"}).data):
        for domain in "AB":
            encoding = encoding_of(settings, domain)
            quantized = encoding.quantize(images)
            assert torch.equal(encoding.quantize(quantized), quantized)
            if encoding.bits:
                assert torch.equal(encoding.to_floats(encoding.from_floats(images)), quantized)
            else:
                assert torch.allclose(encoding.to_floats(encoding.from_floats(images)), quantized, atol=1e-6)


def test_data_stats_states_the_unit_of_means(command, recipe: Recipe, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "scans.toml").write_text(recipe.to_toml())
    code, output, stderr = command("data", "stats", scans, "--recipe", tmp_path / "scans.toml")
    assert code == 0, stderr
    assert [line.split()[-1] for line in output.splitlines() if line.startswith("trainB")] == ["HU"]
    assert [line.split()[-3:] for line in output.splitlines() if line.startswith("trainA")] == [["levels", "of", "255"]]


def test_export_states_differences_in_the_unit_of_the_domain(command, run: Run, tmp_path: Path) -> None:
    words = ("export", run.path, "--direction", "A2B", "--format", "safetensors", "--out", tmp_path / "net.safetensors")
    code, output, stderr = command(*words)
    assert code == 0, stderr
    assert " in HU, from the network's translations" in output


def test_health_states_differences_as_shares_of_the_range() -> None:
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    findings = examine({"real_A": images, "fake_B": images + 0.2, "real_B": images}, [])
    (evidence,) = [finding.evidence for finding in findings if finding.name.endswith("output equals input")]
    assert evidence.startswith("outputs differ from their inputs by 10.0% of the range on average")


def test_brackets_in_names_and_units_are_printed(command, recipe: Recipe, scans: Path, tmp_path: Path) -> None:
    """They are markup in the tables of rich."""
    named = recipe.swap({"data.unit_B": "[/m]"})
    run = gantoolkit.train(named, scans, tmp_path / "run[lr]", device="cpu", stop_at=1)
    code, output, stderr = command("evaluate", run.path, "--out", tmp_path / "scores", "--metric", "l1")
    assert code == 0, stderr
    assert "l1 ([/m])" in output
    assert "run[lr]  " in output


def test_scores_in_another_unit_are_measured_again(recipe: Recipe, scans: Path, tmp_path: Path) -> None:
    """A unit may change when a run is resumed, because it has no effect on the weights."""
    choice, ablation = MetricChoice(["l1"], {}), Ablation(tmp_path / "out", scans)
    units = []
    for unit in ("HU", "HU", "mGy"):
        trial = Trial("scans", 0, recipe.swap({"data.unit_B": unit}), tmp_path / "out" / "scans" / "seed-0")
        with contextlib.nullcontext() if unit == "HU" else pytest.warns(UserWarning, match="unit_B"):
            Run.start(trial.recipe, scans, trial.path).train(device="cpu", stop_at=1)
        units.append(ablation.measure(trial, choice, device="cpu").directions["A2B"].scores["l1"].unit)
    assert units == ["HU", "HU", "mGy"]
