"""Pixels without data, in the ground truth or in the input, count in no score."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import make_dataset

import gantoolkit
from gantoolkit.data.encoding import encoding_of
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.evaluation.scoring import choose_metrics, score_run
from gantoolkit.evaluation.tables import read_scores
from gantoolkit.recipes import Recipe

LOW, HIGH, NODATA = -1024.0, 3071.0, -2000.0


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Pairs: A is gray pictures, B is arrays whose border and, in the third image, all pixels have no data."""
    root = make_dataset(tmp_path / "scans", count_A=3, count_B=3, test=3)
    draw = np.random.default_rng(0)
    for folder in (root / "trainB", root / "testB"):
        for number, path in enumerate(sorted(folder.iterdir())):
            values = draw.uniform(LOW, HIGH, (36, 40)).astype(np.float32)
            values[:, : 15 + 5 * number] = NODATA
            if folder.name == "testB" and number == 2:
                values[:] = NODATA
            np.save(path.with_suffix(".npy"), values)
            path.unlink()
    return root


@pytest.fixture
def recipe(tiny: Recipe) -> Recipe:
    changes = {"data.channels_A": 1, "data.channels_B": 1, "data.range_B": [LOW, HIGH], "data.nodata_B": NODATA}
    return tiny.swap({**changes, "data.unit_B": "HU", "data.resize": "none", "identity_weight": 0.0})


def test_scores_leave_out_pixels_without_data(command, recipe: Recipe, scans: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(recipe, scans, tmp_path / "run", device="cpu", stop_at=1)
    images = EvaluationImages.open(scans, run.recipe.data)
    encoding, crop = encoding_of(run.recipe.data, "B"), (slice(10, 26), slice(12, 28))  # the center, 16×16 pixels
    expected = []
    for index in range(2):
        truth = np.load(scans / "testB" / f"{index:02d}.npy")[crop]
        inputs = images.read("A", [index])
        output = encoding.from_floats(run.translator("A2B", device="cpu").translate_tensor(inputs)[0])[..., 0]
        has_data = truth != NODATA
        assert 0 < has_data.mean() < 1
        expected.append(float(np.abs(output - truth)[has_data].mean()))
    result = score_run(run, images, choose_metrics(["l1", "psnr"], {}), device="cpu").directions["A2B"]
    assert result.per_image["l1"][:2] == pytest.approx(expected, rel=1e-5)
    assert math.isnan(result.per_image["l1"][2])  # no pixel has data
    l1 = result.scores["l1"]
    assert l1.value == pytest.approx(np.mean(expected), rel=1e-5)
    assert [l1.low, l1.high] == pytest.approx([min(expected), max(expected)], rel=1e-5)  # of the two images that count
    name, order = result.ranked() or ("", [])
    assert (name, order[-1]) == ("l1", 2)
    assert "l1: 1 of 3 images have no pixel with data" in result.notes

    # The reconstructions of A's inputs are not affected; in the other direction, pixels without data are in the inputs.
    code, output, stderr = command("evaluate", run.path, "--out", tmp_path / "scores", "--device", "cpu")
    assert code == 0, stderr
    (scores, *_) = read_scores(tmp_path / "scores" / "scores.json")
    assert scores.directions["A2B"].scores["l1"] == l1
    assert not any(map(math.isnan, scores.directions["A2B"].per_image["rec_l1"]))
    for name in ("l1", "rec_l1"):
        values = scores.directions["B2A"].per_image[name]
        assert [math.isnan(value) for value in values] == [False, False, True]
    assert "rec_l1: 1 of 3 images have no pixel with data" in output


@pytest.mark.parametrize("resize", ["square", "shorter_side"])
@pytest.mark.parametrize("resample", ["bicubic", "nearest"])
def test_interpolated_pixels_have_data_only_if_all_their_sources_have(
    resize: str, resample: str, recipe: Recipe, scans: Path
) -> None:
    settings = recipe.swap({"data.resize": resize, "data.resample_B": resample}).data
    images = EvaluationImages.open(scans, settings)
    before, valid = images.read("B", [0, 1]), images.read_valid("B", [0, 1])
    assert valid is not None
    assert valid.shape == (2, 1, 16, 16)
    assert 0.3 < valid[0].float().mean() < 0.7
    assert images.read_valid("A", [0]) is None
    for path in (scans / "testB").iterdir():
        values = np.load(path)
        np.save(path, np.where(values == NODATA, np.float32(HIGH), values))
    after = images.read("B", [0, 1])
    assert torch.allclose(before[valid], after[valid], atol=2e-3)
    assert not torch.allclose(before, after, atol=0.5)


def test_files_without_such_pixels_have_data_everywhere(recipe: Recipe, scans: Path) -> None:
    for path in (scans / "testB").iterdir():
        np.save(path, np.zeros((36, 40), dtype=np.float32))
    valid = EvaluationImages.open(scans, recipe.data).read_valid("B", range(3))
    assert valid is not None
    assert valid.all()


def test_nan_marks_pixels_without_data(recipe: Recipe, scans: Path) -> None:
    for path in (scans / "testB").iterdir():
        values = np.load(path)
        np.save(path, np.where(values == NODATA, np.float32(np.nan), values))
    marked = EvaluationImages.open(scans, recipe.swap({"data.nodata_B": "nan"}).data)
    valid = marked.read_valid("B", range(3))
    assert valid is not None
    assert [float(mask.float().mean()) for mask in valid] == [13 / 16, 8 / 16, 0]
