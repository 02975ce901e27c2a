"""`gantoolkit evaluate`: what it measures, what it writes, and what bad input gets; measuring while a run trains."""

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
from gantoolkit.evaluation.pages import Scored, write_page
from gantoolkit.evaluation.scoring import choose_metrics, score_references, score_run
from gantoolkit.evaluation.tables import read_scores
from gantoolkit.recipes import Recipe, simgan
from gantoolkit.run import Run

DEFAULTS = choose_metrics(["l1", "psnr", "ssim"], {})


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs whose B is A, a little brighter."""
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


def test_figures_are_those_of_the_images_that_translate_would_write(run: Run) -> None:
    """The whole way: the same generator through another door, and scikit-image as the judge."""
    measured = EvaluationImages.open(run.data, run.recipe.data)
    scores = score_run(run, measured, choose_metrics(["psnr"], {}), device="cpu")
    translator = run.translator("A2B", device="cpu")
    expected = []
    for place in range(5):
        made, truth = (
            ((image[0].permute(1, 2, 0).double() + 1) * 127.5).round().numpy()
            for image in (translator.translate_tensor(measured.read("A", [place])), measured.read("B", [place]))
        )
        expected.append(peak_signal_noise_ratio(truth, made, data_range=255))
    found = scores.directions["A2B"]
    assert found.each["psnr"] == pytest.approx(expected, rel=1e-6)
    assert found.figures["psnr"].value == pytest.approx(sum(expected) / 5, rel=1e-6)
    assert found.figures["psnr"].low is not None
    assert found.figures["psnr"].high is not None
    assert (
        min(expected) <= found.figures["psnr"].low <= sum(expected) / 5 <= found.figures["psnr"].high <= max(expected)
    )
    name, order = found.ranked() or ("", [])
    assert name == "psnr"
    assert [expected[place] for place in order] == sorted(expected, reverse=True)


def test_reconstructions_are_measured_by_where_they_started(run: Run) -> None:
    measured = EvaluationImages.open(run.data, run.recipe.data)
    scores = score_run(run, measured, choose_metrics(["l1"], {}), device="cpu")
    inputs = measured.read("A", range(5))
    forth, back = run.translator("A2B", device="cpu"), run.translator("B2A", device="cpu")
    again = back.translate_tensor(forth.translate_tensor(inputs))
    levels = [((images + 1) * 127.5).round() for images in (again, inputs)]
    expected = float((levels[0] - levels[1]).abs().mean())
    assert scores.directions["A2B"].figures["rec_l1"].value == pytest.approx(expected, rel=1e-5)


def test_references_are_a_scale(pairs: Path, tiny: Recipe) -> None:
    measured = EvaluationImages.open(pairs, tiny.data)
    found = {each.name: each.directions["A2B"] for each in score_references(measured, ["A2B"], DEFAULTS)}
    assert found["the truth itself"].figures["l1"].value == 0
    assert found["the truth itself"].figures["psnr"].value == float("inf")
    assert found["the truth itself"].figures["ssim"].value == pytest.approx(1)
    ranks = ["the truth itself", "the input itself", "the truth of another image"]
    for figure, sign in (("l1", 1), ("psnr", -1), ("ssim", -1)):
        values = [sign * found[name].figures[figure].value for name in ranks]
        assert values == sorted(values), figure
        assert len(set(values)) == 3


def test_without_pairs_only_what_needs_none_is_measured(command, tiny: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "images")
    (data / "testB" / "00.png").rename(data / "testB" / "another.png")
    gantoolkit.train(tiny, data, tmp_path / "run", device="cpu", stop_at=1)
    code, output, _ = command("evaluate", tmp_path / "run", "--out", tmp_path / "scores", "--metric", "l1")
    assert code == 0
    assert {row["figure"] for row in read_csv(tmp_path / "scores" / "scores.csv")} == {"rec_l1"}
    assert "the truth itself" not in output


def test_evaluate_writes_a_table_csv_json_and_a_page(command, run: Run, tiny: Recipe, tmp_path: Path) -> None:
    other = gantoolkit.train(tiny.swap({"training.seed": 1}), run.data, tmp_path / "other", device="cpu", stop_at=1)
    out = tmp_path / "scores"
    code, output, _ = command("evaluate", run.path, other.path, "--out", out, "--device", "cpu")
    assert code == 0
    for word in ("A → B, 95 % intervals over 5 images", "B → A", "run", "other", "rec_psnr", "the truth itself", "∞"):
        assert word in output
    scores = read_scores(out / "scores.json")
    assert [each.name for each in scores[:2]] == ["run", "other"]
    assert [each.step for each in scores[:2]] == [2, 1]
    rows = read_csv(out / "scores.csv")
    for each in scores:
        for way, scored in each.directions.items():
            for name, figure in scored.figures.items():
                (row,) = (
                    row for row in rows if (row["name"], row["direction"], row["figure"]) == (each.name, way, name)
                )
                assert float(row["value"]) == figure.value
    images = read_csv(out / "images.csv")
    assert len([row for row in images if row["name"] == "run" and row["direction"] == "A2B"]) == 5
    assert "Infinity" not in (out / "scores.json").read_text()

    page = (out / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for word in ("worst", "best", "ground_truth", "reconstruction", "run", "other"):
        assert word in page.lower()
    assert page.count("<img") >= 2 * 2 * 3  # runs, directions, rows of pictures


def test_the_page_shows_the_worst_images(run: Run, tmp_path: Path, command) -> None:
    """One test image that nothing can translate well: it has to be among the pictures."""
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


def test_the_page_shows_every_run_only_images_that_all_were_measured_on(run: Run, tmp_path: Path) -> None:
    every = EvaluationImages.open(run.data, run.recipe.data)
    elsewhere = EvaluationImages.open(shutil.copytree(run.data, tmp_path / "elsewhere"), run.recipe.data)
    for other, rows in ((every, 4), (every.take(2), 2), (elsewhere, 0)):
        scored = [
            Scored(score_run(run, images, choose_metrics(["l1"], {}), device="cpu"), run, images)
            for images in (every, other)
        ]
        write_page(tmp_path / "page.html", scored, [], title="Scores", device="cpu")
        side_by_side, _ = (tmp_path / "page.html").read_text().split("its worst images", 1)
        assert side_by_side.count('alt="input"') == rows


def test_files_that_cannot_be_read_are_counted(command, run: Run, tmp_path: Path) -> None:
    (run.data / "testA" / "02.png").write_bytes(b"no image")
    code, _, complaint = command("evaluate", run.path, "--out", tmp_path / "scores", "--metric", "l1")
    assert code == 3, complaint
    assert "02.png" in complaint
    rows = read_csv(tmp_path / "scores" / "images.csv")
    assert [row["image"] for row in rows if (row["name"], row["direction"]) == ("run", "A2B")] == [
        "00.png",
        "01.png",
        "03.png",
        "04.png",
    ]


def test_runs_of_one_name_are_told_apart(command, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "elsewhere" / "run")
    code, output, _ = command(
        "evaluate", run.path, tmp_path / "elsewhere" / "run", "--out", tmp_path / "scores", "--metric", "l1"
    )
    assert code == 0
    assert "elsewhere/run" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
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
def test_what_cannot_be_measured_is_said_in_one_sentence(
    arguments: list[str], said: str, command, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, complaint = command("evaluate", *arguments)
    assert code == 2
    assert said in complaint
    assert "Traceback" not in complaint
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
def watched(tiny: Recipe) -> Recipe:
    """Ten steps (of a set with five images), measured at 2, 4, ..., 10."""
    return tiny.swap({"training.evaluate_every": 2, "optimizer.lr": 0.01, "training.log_every": 1})


@pytest.fixture
def lined_up(tmp_path: Path) -> Path:
    data = make_dataset(tmp_path / "pairs", count_A=5, count_B=5)
    for path in (data / "testA").iterdir():
        make_image(7).save(data / "testB" / path.name)
    return data


def measured_rows(run: Run) -> dict[int, float]:
    """Step → mean PSNR over directions, from the log."""
    rows = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
    found = {}
    for row in rows:
        values = [value for name, value in row.items() if name.endswith("/psnr")]
        if values:
            found[row["step"]] = sum(values) / len(values)
    return found


def test_while_training_the_best_is_kept(watched: Recipe, lined_up: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(watched, lined_up, tmp_path / "run", device="cpu")
    found = measured_rows(run)
    assert list(found) == [2, 4, 6, 8, 10]
    best = max(found, key=lambda step: found[step])
    assert run.translator("A2B", best=True, device="cpu").generator.step == best
    measured = EvaluationImages.open(lined_up, run.recipe.data)
    scores = score_run(run, measured, choose_metrics(["psnr"], {}), best=True, device="cpu")
    mean = sum(each.figures["psnr"].value for each in scores.directions.values()) / 2
    assert mean == pytest.approx(found[best], rel=1e-5)
    assert f"{best}" in run.folder.report.read_text()
    assert "Measured on test images" in run.folder.report.read_text()


def test_measuring_changes_nothing_that_is_learned_and_resumes_exactly(
    watched: Recipe, lined_up: Path, tmp_path: Path
) -> None:
    whole = gantoolkit.train(watched, lined_up, tmp_path / "whole", device="cpu")
    plain = gantoolkit.train(watched.swap({"training.evaluate_every": 0}), lined_up, tmp_path / "plain", device="cpu")
    gantoolkit.train(watched, lined_up, tmp_path / "parts", device="cpu", stop_at=7)
    parts = gantoolkit.train(watched, lined_up, tmp_path / "parts", device="cpu")
    inputs = EvaluationImages.open(lined_up, watched.data).read("A", [0, 1])
    last = [run.translator("A2B", device="cpu").translate_tensor(inputs) for run in (whole, plain, parts)]
    assert torch.equal(last[0], last[1])
    assert torch.equal(last[0], last[2])
    assert measured_rows(whole) == measured_rows(parts)
    best = [run.translator("B2A", best=True, device="cpu") for run in (whole, parts)]
    assert best[0].generator.step == best[1].generator.step
    assert torch.equal(*(translator.translate_tensor(inputs) for translator in best))


def test_measuring_without_what_it_needs_is_said_before_a_step(watched: Recipe, dataset: Path, tmp_path: Path) -> None:
    (dataset / "testB" / "00.png").rename(dataset / "testB" / "another.png")
    with pytest.raises(DataError, match="needs pairs"):
        gantoolkit.train(watched, dataset, tmp_path / "run", device="cpu")
    shutil.rmtree(dataset / "testA")
    with pytest.raises(DataError, match="needs test images"):
        gantoolkit.train(watched, dataset, tmp_path / "other", device="cpu")
    (dataset / "testB" / "another.png").write_bytes(b"no image")
    shutil.copytree(dataset / "testB", dataset / "testA")
    with pytest.raises(DataError, match=r"another\.png: is not a readable image"):
        gantoolkit.train(watched, dataset, tmp_path / "third", device="cpu")


def test_a_metric_of_the_other_direction_cannot_watch(lined_up: Path, tmp_path: Path) -> None:
    one_way = simgan().swap({**TINY, "metric": "label_maps", "training.evaluate_every": 2})
    with pytest.raises(RecipeError, match="B2A alone, and this system translates A2B"):
        gantoolkit.train(one_way, lined_up, tmp_path / "run", device="cpu")
