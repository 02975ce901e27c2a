"""Metrics on the second device of the stand-in, and validation."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _helpers.small import make_dataset, make_tiny
from torch import Tensor

from fakecuda.cases import print_outcomes
from fakecuda.journal import record
from gantoolkit.evaluation.scoring import choose_metrics
from gantoolkit.recipes.building import build_system
from gantoolkit.training.measuring import Gauge, ImageBatch
from gantoolkit.training.validation import Validation

DEVICE = torch.device("cuda:1")
SIDE = 64
FEATURES = {"backbone": "test_resnet", "weights": "none", "side": 32}
METRICS: dict[str, dict[str, Any]] = {
    "l1": {},
    "psnr": {},
    "ssim": {},
    "label_maps": {"palette": "camvid"},
    "fcn_score": {
        "segmenter": "torchvision:lraspp_mobilenet_v3_large",
        "weights": "none",
        "palette": "camvid",
        "side": SIDE,
    },
    "fid": FEATURES,
    "kid": FEATURES,
}


class ThirdPartyMetric:
    """A metric that knows nothing of devices."""

    against = "ground_truth"
    higher_is_better = False

    def update(self, images: Tensor, targets: Tensor) -> None:
        assert images.device.type == targets.device.type == "cpu"

    def compute(self) -> Mapping[str, float]:
        return {"nothing": 0.0}

    def reset(self) -> None: ...


def make_batch(count: int = 4) -> ImageBatch:
    return ImageBatch(torch.zeros(count, 3, SIDE, SIDE, device=DEVICE), DEVICE)


def add(gauge: Gauge, *, deterministic: bool = False) -> dict[str, Any]:
    """Add images that are on the device, twice; then reset the metric."""
    torch.use_deterministic_algorithms(deterministic)
    torch.ones(8, 8, device=DEVICE) @ torch.ones(8, 8, device=DEVICE)  # PyTorch keeps the workspace of cuBLAS
    before = torch.cuda.memory_allocated(DEVICE)
    gauge.add(make_batch(), make_batch())
    images, targets = make_batch(), make_batch()
    with record() as journal:
        gauge.add(images, targets)
    copied: Counter[str] = Counter()
    for copy in journal.copies:
        copied[copy.name] += copy.count
    del images, targets
    gauge.statistics.clear()
    gauge.metric.reset()
    torch.use_deterministic_algorithms(False)
    return {
        "launches": len(journal.launches),
        "copied": dict(copied),
        "devices": sorted(journal.devices),
        "bytes": torch.cuda.memory_allocated(DEVICE) - before,
    }


def measure_batches(name: str, *, deterministic: bool = False) -> dict[str, Any]:
    """Add images to a new metric."""
    settings = {f"{name}.{key}": value for key, value in METRICS[name].items()}
    ((_, make),) = choose_metrics([name], settings)
    return add(Gauge(name, make()), deterministic=deterministic)


def validate(folder: Path) -> dict[str, Any]:
    """Measure a system on the device; the bytes that stay allocated and reserved."""
    recipe = make_tiny().swap({"metric": {"name": "kid", **FEATURES}}).resolve()
    system = build_system(recipe)
    for network in system.networks.values():
        network.to(DEVICE)
    validation = Validation(recipe, system, make_dataset(folder), DEVICE)
    before = torch.cuda.memory_allocated(DEVICE), torch.cuda.memory_reserved(DEVICE)
    with record() as journal:
        values = validation.measure().values
    after = torch.cuda.memory_allocated(DEVICE), torch.cuda.memory_reserved(DEVICE)
    return {
        "values": sorted(values),
        "devices": sorted({launch.device for launch in journal.launches}),
        "bytes": [last - first for last, first in zip(after, before, strict=True)],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: partial(measure_batches, name) for name in METRICS}
        deterministic = {
            f"{name}, deterministic": partial(measure_batches, name, deterministic=True) for name in METRICS
        }
        print_outcomes(
            {
                **cases,
                **deterministic,
                "third party": lambda: add(Gauge("third party", ThirdPartyMetric())),
                "validation": partial(validate, Path(folder)),
            }
        )


if __name__ == "__main__":
    main()
