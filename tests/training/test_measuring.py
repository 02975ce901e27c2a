"""The loop that measures translations."""

from pathlib import Path

import pytest
import torch
from _helpers.small import make_dataset
from torch import Tensor

from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.building import build_system
from gantoolkit.training.measuring import Gauge, measure
from gantoolkit.training.validation import Validation


class Counter:
    """A metric of domains that counts images."""

    against = "domain"

    def __init__(self) -> None:
        self.counts = [0, 0]

    def update(self, images: Tensor, targets: Tensor) -> None:
        self.counts = [self.counts[0] + len(images), self.counts[1] + len(targets)]

    def compute(self) -> dict[str, float]:
        return {"images": float(self.counts[0]), "targets": float(self.counts[1])}

    def reset(self) -> None:
        self.counts = [0, 0]


@pytest.fixture
def images(tiny: Recipe, tmp_path: Path) -> EvaluationImages:
    """Twenty test images in A, one in B."""
    make_dataset(tmp_path, count_A=1, count_B=1, test=20)
    for number in range(1, 20):
        (tmp_path / "testB" / f"{number:02d}.png").unlink()
    (tmp_path / "testB" / "00.png").rename(tmp_path / "testB" / "alone.png")
    return EvaluationImages.open(tmp_path, tiny.data)


@pytest.mark.parametrize(("direction", "count", "other"), [("A2B", 20, 1), ("B2A", 1, 20)])
def test_domains_of_different_size_are_used_whole_and_translated_in_batches(
    images: EvaluationImages, direction: str, count: int, other: int
) -> None:
    metric, sizes = Counter(), []

    def translate(inputs: Tensor, indices: range) -> Tensor:
        assert len(inputs) == len(indices)
        sizes.append(len(inputs))
        return inputs

    measure(images, direction, [Gauge("counter", metric)], translate)
    assert metric.counts == [count, other]
    assert sum(sizes) == count
    assert max(sizes) <= 8


def test_validation_loads_each_metric_once(tiny: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path)
    recipe = tiny.resolve()
    validation = Validation(recipe, build_system(recipe), data, torch.device("cpu"))
    metrics = {"A2B": Counter(), "B2A": Counter()}
    validation.metrics = metrics
    values = validation.measure().values
    assert values == {f"{direction}/{name}": 2.0 for direction in metrics for name in ("images", "targets")}
    assert validation.measure().values == values  # reset, not added up
    assert metrics["A2B"].counts == [0, 0]


def test_reconstructions_are_translated_in_batches(images: EvaluationImages) -> None:
    metric, sizes = Counter(), []

    def back(results: Tensor) -> Tensor:
        sizes.append(len(results))
        return results

    gauge = Gauge("counter", metric, reconstruction=True)
    measure(images, "A2B", [gauge], lambda inputs, _: torch.zeros_like(inputs), back)
    assert metric.counts == [20, 20]
    assert sizes == [8, 8, 4]


class OnAnyDevice(Counter):
    """A metric that computes on any device, and notes where its images were."""

    any_device = True

    def __init__(self) -> None:
        super().__init__()
        self.devices: set[str] = set()

    def update(self, images: Tensor, targets: Tensor) -> None:
        self.devices |= {images.device.type, targets.device.type}


class OnTheCPU(OnAnyDevice):
    any_device = False


def test_images_are_on_the_device_for_metrics_that_compute_there_and_are_read_once(
    images: EvaluationImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands in for one, and its copies to the CPU for real ones."""
    reads: list[tuple[str, bool]] = []
    read = EvaluationImages.read

    def count(self: EvaluationImages, domain: str, indices: range, *, label_maps: bool = False) -> Tensor:
        reads.append((domain, label_maps))
        return read(self, domain, indices, label_maps=label_maps)

    monkeypatch.setattr(EvaluationImages, "read", count)
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape))
    metrics, inputs_on = [OnAnyDevice(), OnTheCPU(), OnAnyDevice()], set()

    def translate(inputs: Tensor, _: range) -> Tensor:
        inputs_on.add(inputs.device.type)
        return inputs

    gauges = [Gauge("device", metric) for metric in metrics]
    measure(images, "A2B", gauges, translate, device=torch.device("meta"))
    assert inputs_on == {"meta"}
    assert [metric.devices for metric in metrics] == [{"meta"}, {"cpu"}, {"meta"}]
    assert reads == [("A", False), ("B", False)]
