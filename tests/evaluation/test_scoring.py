"""`gantoolkit evaluate`: scores, files and invalid input; evaluation during training."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from _helpers.small import TINY, make_dataset, make_image
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import gantoolkit
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.errors import DataError, PluginError, RecipeError
from gantoolkit.evaluation.pages import EvaluatedRun, write_page
from gantoolkit.evaluation.references import score_references
from gantoolkit.evaluation.scoring import choose_metrics, score_run
from gantoolkit.evaluation.tables import read_scores
from gantoolkit.recipes import Recipe, simgan
from gantoolkit.run import Run

DEFAULTS = choose_metrics(["l1", "psnr", "ssim"], {})


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A paired data set whose test images of B are those of A, a little brighter."""
    root = make_dataset(tmp_path / "pairs", count_A=4, count_B=4, test=5)
    for path in (root / "testA").iterdir():
        image = Image.open(path)
        image.point(lambda level: min(level + 20, 255)).save(root / "testB" / path.name)
    return root


@pytest.fixture
def run(tiny: Recipe, pairs: Path, tmp_path: Path) -> Run:
    return gantoolkit.train(tiny, pairs, tmp_path / "run", device="cpu", stop_at=2)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_match_scikit_image_on_translated_images(run: Run) -> None:
    """The reference translates with the same generator, one image at a time, and scores with scikit-image."""
    images = EvaluationImages.open(run.data, run.recipe.data)
    scores = score_run(run, images, choose_metrics(["psnr"], {}), device="cpu")
    translator = run.translator("A2B", device="cpu")
    expected = []
    for index in range(5):
        output, target = (
            ((image[0].permute(1, 2, 0).double() + 1) * 127.5).round().numpy()
            for image in (translator.translate_tensor(images.read("A", [index])), images.read("B", [index]))
        )
        expected.append(peak_signal_noise_ratio(target, output, data_range=255))
    result = scores.directions["A2B"]
    assert result.per_image["psnr"] == pytest.approx(expected, rel=1e-6)
    psnr = result.scores["psnr"]
    assert psnr.value == pytest.approx(sum(expected) / 5, rel=1e-6)
    assert psnr.low is not None
    assert psnr.high is not None
    assert min(expected) <= psnr.low <= sum(expected) / 5 <= psnr.high <= max(expected)
    name, order = result.ranked() or ("", [])
    assert name == "psnr"
    assert [expected[index] for index in order] == sorted(expected, reverse=True)


def test_reconstructions_are_compared_with_the_inputs(run: Run) -> None:
    images = EvaluationImages.open(run.data, run.recipe.data)
    scores = score_run(run, images, choose_metrics(["l1"], {}), device="cpu")
    inputs = images.read("A", range(5))
    forward, backward = run.translator("A2B", device="cpu"), run.translator("B2A", device="cpu")
    reconstructions = backward.translate_tensor(forward.translate_tensor(inputs))
    levels = [((batch + 1) * 127.5).round() for batch in (reconstructions, inputs)]
    expected = float((levels[0] - levels[1]).abs().mean())
    assert scores.directions["A2B"].scores["rec_l1"].value == pytest.approx(expected, rel=1e-5)


def test_references_rank_as_expected(pairs: Path, tiny: Recipe) -> None:
    images = EvaluationImages.open(pairs, tiny.data)
    results = {scores.name: scores.directions["A2B"] for scores in score_references(images, ["A2B"], DEFAULTS)}
    assert results["ground truth"].scores["l1"].value == 0
    assert results["ground truth"].scores["psnr"].value == float("inf")
    assert results["ground truth"].scores["ssim"].value == pytest.approx(1)
    ranks = ["ground truth", "input", "ground truth of another image"]
    for metric, sign in (("l1", 1), ("psnr", -1), ("ssim", -1)):
        values = [sign * results[name].scores[metric].value for name in ranks]
        assert values == sorted(values), metric
        assert len(set(values)) == 3


def test_metrics_that_need_pairs_are_skipped_for_unpaired_data(command, tiny: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "images")
    (data / "testB" / "00.png").rename(data / "testB" / "another.png")
    gantoolkit.train(tiny, data, tmp_path / "run", device="cpu", stop_at=1)
    code, output, _ = command("evaluate", tmp_path / "run", "--out", tmp_path / "scores", "--metric", "l1")
    assert code == 0
    assert {row["score"] for row in read_csv(tmp_path / "scores" / "scores.csv")} == {"rec_l1"}
    assert "ground truth" not in output
    assert not re.search(r"^input", output, re.MULTILINE)


def test_evaluate_writes_tables_and_a_page(command, run: Run, tiny: Recipe, tmp_path: Path) -> None:
    other = gantoolkit.train(tiny.swap({"training.seed": 1}), run.data, tmp_path / "other", device="cpu", stop_at=1)
    out = tmp_path / "scores"
    code, output, _ = command("evaluate", run.path, other.path, "--out", out, "--device", "cpu")
    assert code == 0
    for word in ("A → B, 95 % intervals over 5 images", "B → A", "run", "other", "rec_psnr", "ground truth", "∞"):
        assert word in output
    scores = read_scores(out / "scores.json")
    assert [entry.name for entry in scores[:2]] == ["run", "other"]
    assert [entry.step for entry in scores[:2]] == [2, 1]
    lines = read_csv(out / "scores.csv")
    rows = {(row["name"], row["direction"], row["score"]): row for row in lines}
    assert len(rows) == len(lines)
    for entry in scores:
        for direction, result in entry.directions.items():
            for name, estimate in result.scores.items():
                assert float(rows.pop((entry.name, direction, name))["value"]) == estimate.value
    assert not rows
    images = read_csv(out / "images.csv")
    assert len([row for row in images if row["name"] == "run" and row["direction"] == "A2B"]) == 5
    assert "Infinity" not in (out / "scores.json").read_text()

    page = (out / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for word in ("worst", "best", "ground truth", "reconstruction", "run", "other"):
        assert word in page.lower()
    assert page.count("<img") >= 2 * 2 * 3  # runs, directions, rows of pictures


def test_page_shows_the_worst_images(run: Run, tmp_path: Path, command) -> None:
    """A test image with an unreachable target must be among the pictures."""
    Image.new("RGB", (40, 36), (255, 0, 255)).save(run.data / "testB" / "03.png")
    code, _, _ = command("evaluate", run.path, "--out", tmp_path / "scores", "--metric", "psnr", "--device", "cpu")
    assert code == 0
    (worst,) = (
        row
        for row in read_csv(tmp_path / "scores" / "images.csv")
        if (row["name"], row["direction"], row["image"]) == ("run", "A2B", "03.png")
    )
    values = [
        float(row["psnr"])
        for row in read_csv(tmp_path / "scores" / "images.csv")
        if (row["name"], row["direction"]) == ("run", "A2B")
    ]
    assert float(worst["psnr"]) == min(values)
    page = (tmp_path / "scores" / "report.html").read_text()
    assert re.search(r"03\.png", page)


def test_page_compares_runs_on_shared_images_only(run: Run, tmp_path: Path) -> None:
    complete = EvaluationImages.open(run.data, run.recipe.data)
    elsewhere = EvaluationImages.open(shutil.copytree(run.data, tmp_path / "elsewhere"), run.recipe.data)
    for other, rows in ((complete, 4), (complete.take(2), 2), (elsewhere, 0)):
        scored = [
            EvaluatedRun(score_run(run, images, choose_metrics(["l1"], {}), device="cpu"), run, images)
            for images in (complete, other)
        ]
        write_page(tmp_path / "page.html", scored, [], title="Scores", device="cpu")
        side_by_side, _ = (tmp_path / "page.html").read_text().split("worst, median and best images", 1)
        assert side_by_side.count('alt="input"') == rows


def test_unreadable_files_are_reported(command, run: Run, tmp_path: Path) -> None:
    (run.data / "testA" / "02.png").write_bytes(b"not an image")
    code, _, stderr = command("evaluate", run.path, "--out", tmp_path / "scores", "--metric", "l1")
    assert code == 3, stderr
    assert "02.png" in stderr
    rows = read_csv(tmp_path / "scores" / "images.csv")
    assert [row["image"] for row in rows if (row["name"], row["direction"]) == ("run", "A2B")] == [
        "00.png",
        "01.png",
        "03.png",
        "04.png",
    ]


def test_runs_with_the_same_name_are_distinguished(command, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "elsewhere" / "run")
    code, output, _ = command(
        "evaluate", run.path, tmp_path / "elsewhere" / "run", "--out", tmp_path / "scores", "--metric", "l1"
    )
    assert code == 0
    assert "elsewhere/run" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "scores"], "needs runs"),
        (["nowhere", "--out", "scores"], "nowhere"),
        (["run", "--out", "scores", "--metric", "psmr"], "Did you mean 'psnr'"),
        (["run", "--out", "scores", "--metric", "fid.side=3"], "side"),
        (["run", "--out", "scores", "--split", "val"], "valA"),
        (["run", "--out", "scores", "--data", "nothing"], "nothing"),
        (["run", "--out", "scores", "--generators", "best"], "best"),
    ],
    ids=["no run", "no such run", "no such metric", "no such parameter", "no such split", "no such data", "no best"],
)
def test_invalid_arguments_are_explained(
    arguments: list[str], message: str, command, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, stderr = command("evaluate", *arguments)
    assert code == 2
    assert message in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "scores").exists()


def test_metrics_are_chosen_by_name_and_parameter() -> None:
    assert [name for name, _ in choose_metrics(["psnr"], {"kid.subset_size": 3, "kid.backbone": "resnet18"})] == [
        "psnr",
        "kid",
    ]
    with pytest.raises(PluginError, match="Did you mean"):
        choose_metrics(["ssm"], {})
    with pytest.raises(RecipeError):
        choose_metrics([], {"fid.no_such": 3})


@pytest.fixture
def evaluated_recipe(tiny: Recipe) -> Recipe:
    """Ten steps (on a data set of five images), evaluated at steps 2, 4, ..., 10."""
    return tiny.swap({"training.evaluate_every": 2, "optimizer.lr": 0.01, "training.log_every": 1})


@pytest.fixture
def aligned_pairs(tmp_path: Path) -> Path:
    data = make_dataset(tmp_path / "pairs", count_A=5, count_B=5)
    for path in (data / "testA").iterdir():
        make_image(7).save(data / "testB" / path.name)
    return data


def read_evaluations(run: Run) -> dict[int, float]:
    """Read the mean PSNR over directions by step from the log."""
    rows = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
    psnr = {}
    for row in rows:
        values = [value for name, value in row.items() if name.endswith("/psnr")]
        if values:
            psnr[row["step"]] = sum(values) / len(values)
    return psnr


def test_training_saves_the_best_generators(evaluated_recipe: Recipe, aligned_pairs: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(evaluated_recipe, aligned_pairs, tmp_path / "run", device="cpu")
    psnr = read_evaluations(run)
    assert list(psnr) == [2, 4, 6, 8, 10]
    best = max(psnr, key=lambda step: psnr[step])
    assert run.translator("A2B", best=True, device="cpu").generator.step == best
    images = EvaluationImages.open(aligned_pairs, run.recipe.data)
    scores = score_run(run, images, choose_metrics(["psnr"], {}), best=True, device="cpu")
    mean = sum(result.scores["psnr"].value for result in scores.directions.values()) / 2
    assert mean == pytest.approx(psnr[best], rel=1e-5)
    assert f"{best}" in run.folder.report.read_text()
    assert "Evaluation on test images" in run.folder.report.read_text()


def test_evaluation_does_not_affect_training_and_resumes_exactly(
    evaluated_recipe: Recipe, aligned_pairs: Path, tmp_path: Path
) -> None:
    whole = gantoolkit.train(evaluated_recipe, aligned_pairs, tmp_path / "whole", device="cpu")
    plain = gantoolkit.train(
        evaluated_recipe.swap({"training.evaluate_every": 0}), aligned_pairs, tmp_path / "plain", device="cpu"
    )
    gantoolkit.train(evaluated_recipe, aligned_pairs, tmp_path / "parts", device="cpu", stop_at=7)
    parts = gantoolkit.train(evaluated_recipe, aligned_pairs, tmp_path / "parts", device="cpu")
    inputs = EvaluationImages.open(aligned_pairs, evaluated_recipe.data).read("A", [0, 1])
    last = [run.translator("A2B", device="cpu").translate_tensor(inputs) for run in (whole, plain, parts)]
    assert torch.equal(last[0], last[1])
    assert torch.equal(last[0], last[2])
    assert read_evaluations(whole) == read_evaluations(parts)
    best = [run.translator("B2A", best=True, device="cpu") for run in (whole, parts)]
    assert best[0].generator.step == best[1].generator.step
    assert torch.equal(*(translator.translate_tensor(inputs) for translator in best))


def test_unusable_test_images_are_reported_before_training(
    evaluated_recipe: Recipe, dataset: Path, tmp_path: Path
) -> None:
    (dataset / "testB" / "00.png").rename(dataset / "testB" / "another.png")
    with pytest.raises(DataError, match="needs pairs"):
        gantoolkit.train(evaluated_recipe, dataset, tmp_path / "run", device="cpu")
    shutil.rmtree(dataset / "testA")
    with pytest.raises(DataError, match="needs test images"):
        gantoolkit.train(evaluated_recipe, dataset, tmp_path / "other", device="cpu")
    (dataset / "testB" / "another.png").write_bytes(b"not an image")
    shutil.copytree(dataset / "testB", dataset / "testA")
    with pytest.raises(DataError, match=r"another\.png: is not a readable image"):
        gantoolkit.train(evaluated_recipe, dataset, tmp_path / "third", device="cpu")


def test_metric_of_the_other_direction_is_rejected(aligned_pairs: Path, tmp_path: Path) -> None:
    one_way = simgan().swap({**TINY, "metric": "label_maps", "training.evaluate_every": 2})
    with pytest.raises(RecipeError, match="applies to B2A only, and this system translates A2B"):
        gantoolkit.train(one_way, aligned_pairs, tmp_path / "run", device="cpu")
