"""Segmentation networks: training, files, torchvision's networks and invalid input."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import TINY
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score
from torch import Tensor

import gantoolkit
from gantoolkit.blocks.metrics.fcn_score import FCNScore
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.data import read_image, to_tensor
from gantoolkit.errors import CheckpointError, DataError, RecipeError
from gantoolkit.evaluation.segmenter_training import (
    LabeledSet,
    SegmenterSettings,
    measure_segmenter,
    train_segmenter,
)
from gantoolkit.recipes import cyclegan

PALETTE = """
[[classes]]
name = "ground"
color = [20, 120, 20]
[[classes]]
name = "square"
color = [220, 40, 40]
[[classes]]
name = "never"
color = [0, 0, 250]
"""
SMALL = SegmenterSettings(
    backbone="resnet10t", weights="none", side=32, epochs=6, batch_size=4, lr=3e-3, scale=1.1, seed=1
)


def make_scene(seed: int) -> tuple[Image.Image, np.ndarray]:
    """A photograph of a bright square on dark ground, and the classes of its pixels."""
    draws = np.random.default_rng(seed)
    classes = np.zeros((40, 40), dtype=np.uint8)
    top, left = draws.integers(0, 21, 2)
    classes[top : top + 20, left : left + 20] = 1
    levels = np.where(classes == 1, 200, 60)[..., None] + draws.normal(0, 12, (40, 40, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)), classes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders photographs, maps (in colors) and indices (gray), and palette.toml."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "palette.toml").write_text(PALETTE)
    palette = find_palette(str(root / "palette.toml"))
    for folder in ("photographs", "maps", "indices"):
        (root / folder).mkdir()
    for number in range(16):
        photograph, classes = make_scene(number)
        photograph.save(root / "photographs" / f"{number:02d}.jpg", quality=95)
        Image.fromarray(np.array(palette.colors, dtype=np.uint8)[classes]).save(root / "maps" / f"{number:02d}.png")
        Image.fromarray(classes).save(root / "indices" / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def labeled(scenes: Path) -> LabeledSet:
    return LabeledSet.open(scenes / "photographs", scenes / "maps", find_palette(str(scenes / "palette.toml")))


@pytest.fixture(scope="module")
def segmenter_file(labeled: LabeledSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("segmenter") / "squares.safetensors"
    train_segmenter(labeled, SMALL, file, device=torch.device("cpu"))
    return file


def test_color_maps_and_index_maps_are_equivalent(scenes: Path, labeled: LabeledSet) -> None:
    gray = LabeledSet.open(scenes / "photographs", scenes / "indices", labeled.palette)
    for index in range(len(labeled)):
        assert labeled.read(index)[1].tobytes() == gray.read(index)[1].tobytes()


def test_index_beyond_the_classes_is_ignored(scenes: Path, labeled: LabeledSet, tmp_path: Path) -> None:
    shutil.copytree(scenes / "indices", tmp_path / "indices")
    Image.new("L", (40, 40), 3).save(tmp_path / "indices" / "00.png")
    gray = LabeledSet.open(scenes / "photographs", tmp_path / "indices", labeled.palette)
    assert set(gray.read(0)[1].tobytes()) == {255}


def test_small_segmenter_learns_and_its_scores_match_scikit_learn(labeled: LabeledSet, segmenter_file: Path) -> None:
    segmenter = load_segmenter(str(segmenter_file))
    scores = measure_segmenter(segmenter, labeled)
    assert scores["pixel_accuracy"] > 0.9
    labels, predictions = [], []
    for index in range(len(labeled)):
        photograph, indices = labeled.read(index)
        predictions.append(segmenter.classify(to_tensor(photograph)[None])[0].numpy().ravel())
        labels.append(np.array(indices).ravel())
    labels, predictions = np.concatenate(labels), np.concatenate(predictions)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    overlap = jaccard_score(labels, predictions, labels=sorted(set(labels) | set(predictions)), average="macro")
    assert scores["class_iou"] == pytest.approx(overlap)


def test_training_is_repeatable_and_keeps_the_random_state(
    labeled: LabeledSet, segmenter_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train_segmenter(labeled, SMALL, tmp_path / "again.safetensors", device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (
        load_segmenter(str(path)).network.state_dict() for path in (segmenter_file, tmp_path / "again.safetensors")
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_fcn_score_ranks_real_photographs_first(scenes: Path, segmenter_file: Path, labeled: LabeledSet) -> None:
    photographs, maps = (
        torch.stack([to_tensor(read_image(path)) for path in files]) for files in (labeled.photographs, labeled.maps)
    )

    def score(images: Tensor) -> float:
        metric = FCNScore(segmenter=str(segmenter_file))
        metric.update(images, maps)
        return metric.compute()["class_iou"]

    perfect, shuffled, useless = score(photographs), score(photographs.roll(1, 0)), score(torch.zeros_like(photographs))
    # One of three classes never occurs; the official convention counts it as 0.
    assert 0.8 * 2 / 3 < perfect <= 2 / 3
    assert shuffled < 0.75 * perfect
    assert useless < 0.75 * perfect


def test_command_trains_and_measures_and_evaluate_reads_the_file(command, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "squares.safetensors"
    folders = ["--photographs", scenes / "photographs", "--maps", scenes / "maps"]
    tests = ["--test-photographs", scenes / "photographs", "--test-maps", scenes / "indices"]
    settings = ["backbone=resnet10t", "weights=none", "side=32", "epochs=1", "batch_size=4"]
    words = [word for setting in settings for word in ("--set", setting)]
    code, output, _ = command(
        "train-segmenter", *folders, *tests, "--palette", scenes / "palette.toml", *words, "--out", out
    )
    assert code == 0
    assert "16 photographs, 3 classes of palette" in output
    assert "on 16 test photographs, classes that do not occur left out: pixel accuracy" in output
    for folder, source in (("trainA", "maps"), ("trainB", "photographs"), ("testA", "maps"), ("testB", "photographs")):
        shutil.copytree(scenes / source, tmp_path / "data" / folder)
    for path in (tmp_path / "data").glob("*B/*.jpg"):
        path.rename(path.with_suffix(".png"))  # the format follows from the content, not from the name
    gantoolkit.train(cyclegan().swap(TINY), tmp_path / "data", tmp_path / "run", device="cpu", stop_at=1)
    code, output, stderr = command(
        "evaluate",
        tmp_path / "run",
        "--out",
        tmp_path / "scores",
        "--metric",
        f"fcn_score.segmenter={out}",
        "--metric",
        f"label_maps.palette={scenes / 'palette.toml'}",
    )
    assert code == 0, stderr
    assert "fpn on resnet10t, 32×32" in output
    assert output.count("class_iou") == 2  # FCN score for A → B, label maps for B → A


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_torchvision_networks_with_custom_weights(name: str, tmp_path: Path) -> None:
    from torchvision.models import get_model

    palette = find_palette("camvid")
    torch.manual_seed(5)
    network = get_model(name, weights=None, weights_backbone=None, num_classes=len(palette), aux_loss=None).eval()
    torch.save(network.state_dict(), tmp_path / "own.pth")
    segmenter = load_segmenter(f"torchvision:{name}", palette, weights=f"file:{tmp_path / 'own.pth'}", side=64)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network(((images + 1) / 2 - mean) / std)["out"]
        assert torch.allclose(segmenter(images), expected, atol=1e-5)


def test_invalid_input_is_explained(scenes: Path, segmenter_file: Path, labeled: LabeledSet, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_segmenter(str(tmp_path / "nothing.safetensors"))
    with pytest.raises(CheckpointError, match="predicts the 3 classes of palette, not those of cityscapes"):
        load_segmenter(str(segmenter_file), find_palette("cityscapes"))
    with pytest.raises(RecipeError, match="Did you mean 'fcn_resnet50'"):
        load_segmenter("torchvision:fcn_resnet5", labeled.palette)
    with pytest.raises(RecipeError, match="use an architecture of"):
        train_segmenter(
            labeled, SMALL.model_copy(update={"architecture": "pfn"}), tmp_path / "x", device=torch.device("cpu")
        )
    with pytest.raises(DataError, match="fewer than batch_size = 32"):
        train_segmenter(
            labeled, SMALL.model_copy(update={"batch_size": 32}), tmp_path / "x", device=torch.device("cpu")
        )
    shutil.copytree(scenes / "maps", tmp_path / "maps")
    (tmp_path / "maps" / "03.png").unlink()
    with pytest.raises(DataError, match=r"1 file has no partner, .*03.*; the files of a pair have the same name"):
        LabeledSet.open(scenes / "photographs", tmp_path / "maps", labeled.palette)
    (tmp_path / "half.safetensors").write_bytes(segmenter_file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"half\.safetensors"):
        load_segmenter(str(tmp_path / "half.safetensors"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "epoch=3"], "'epoch': is not a setting; known: architecture, backbone"),
        (["--set", "side=50"], "'side'"),
        (["--set", "weights=http"], "'weights'"),
        (["--palette", "cityscape"], "cityscapes"),
        (["--test-maps", "maps"], "belong together"),
        (["--maps", "nowhere"], "nowhere"),
    ],
    ids=["unknown setting", "invalid side", "invalid weights", "unknown palette", "half a test set", "no folder"],
)
def test_invalid_command_is_explained(words: list[str], message: str, command, scenes: Path, tmp_path: Path) -> None:
    options = {"--photographs": scenes / "photographs", "--maps": scenes / "maps", "--out": tmp_path / "x.safetensors"}
    arguments = [word for name, value in options.items() if name not in words for word in (name, value)]
    code, _, stderr = command("train-segmenter", *arguments, *words)
    assert code == 2
    assert message in stderr
