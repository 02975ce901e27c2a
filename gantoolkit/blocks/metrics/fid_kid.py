"""Distances between two sets of images in the features of a pretrained network, from torchmetrics: FID and KID."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.features import WeightSource, make_backbone, normalize
from gantoolkit.errors import CheckpointError, DataError, RecipeError, first_line

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["FrechetDistance", "KernelDistance"]

_INCEPTION = "inception"
_INCEPTION_SIDE = 299


class _Features(nn.Module):
    """From images (N, C, H, W) in [−1, 1] to one vector of features each, of a network of timm."""

    def __init__(self, backbone: str, weights: str, side: int) -> None:
        super().__init__()
        self.network = make_backbone(backbone, weights, num_classes=0).eval().requires_grad_(False)
        self.backbone, self.side = backbone, side
        with torch.no_grad():
            self.num_features = self(torch.zeros(1, 3, side, side)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        resized = functional.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(-1, 1)
        return self.network(normalize(resized, self.backbone)).double()


class _SetDistance:
    """Gathers features of fakes and of real images; torchmetrics computes."""

    against: Literal["domain"] = "domain"
    higher_is_better = False

    def __init__(self, backbone: str, weights: str, side: int | None) -> None:
        self._backbone, self._weights = backbone, weights
        inception = backbone == _INCEPTION
        self._side = side or (_INCEPTION_SIDE if inception else 224)
        if inception and (side not in (None, _INCEPTION_SIDE) or weights.partition(":")[0] not in ("timm", "file")):
            raise RecipeError(
                "backbone = 'inception' is the network of FID's authors: it takes 299×299 alone, and its weights by default or "
                "from file:<path>; any network of timm can be named in its place"
            )
        how = "by torch-fidelity, bilinear as in TensorFlow" if inception else "bicubic with antialiasing"
        source = "" if weights == "timm" else f" ({weights})"
        self.notes = f"features of {backbone}{source}, images resized to {self._side}×{self._side} {how}"
        self._metric: Metric | None = None

    def update(self, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            for batch, real in ((images, False), (targets, True)):
                metric = self._get().to(batch.device)
                colors = batch.detach().expand(-1, 3, -1, -1)
                rounded = ((colors.clamp(-1, 1) + 1) * 127.5).round().byte()
                # The Inception of torch-fidelity takes bytes; ours is given the same values as floats.
                metric.update(rounded if self._backbone == _INCEPTION else rounded.float() / 127.5 - 1, real=real)

    def reset(self) -> None:
        if self._metric is not None:
            self._metric.reset()

    def make(self, feature: Any, **options: Any) -> "Metric":
        """The metric of torchmetrics on these features."""
        raise NotImplementedError

    def _get(self) -> "Metric":
        if self._metric is None:
            if self._backbone == _INCEPTION:
                self._metric = self._make_inception()
            else:
                self._metric = self.make(_Features(self._backbone, self._weights, self._side))
        return self._metric

    def _make_inception(self) -> "Metric":
        path = self._weights.removeprefix("file:") if self._weights.startswith("file:") else None
        try:
            with torch.random.fork_rng(devices=[]):
                return self.make(2048, feature_extractor_weights_path=path)
        except ModuleNotFoundError as error:
            raise RecipeError(
                "FID's own Inception needs that package: pip install torch-fidelity; or name a network of timm as backbone"
            ) from error
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights of FID's Inception cannot be had ({first_line(error)}); fetch "
                "pt_inception-2015-12-05-6726825d.pth from the releases of torch-fidelity and say weights = "
                '"file:<path>", or name '
                "a network of timm as backbone"
            ) from error

    def _need(self, counts: tuple[int, int]) -> None:
        if min(counts) < 2:
            raise DataError(f"a distance between sets needs two images of each; there are {counts[0]} and {counts[1]}")


class FrechetDistance(_SetDistance):
    """FID (Heusel et al. 2017): the Fréchet distance between Gaussians fitted to the features of two sets.

    It is biased upwards for small sets, so that only figures of equally many images, equal networks and an equal way to resize
    can be compared.

    Args:
        backbone: `inception`, the network of FID's authors as torch-fidelity has it; or any network of timm.
        weights: Of a network of timm: timm, none, file:<path> or package:<distribution>. Of Inception: timm stands for the
            usual download, or file:<path>.
        side: Side in pixels to which images are resized: 299 for Inception, 224 for the others by default.
    """

    def __init__(
        self,
        *,
        backbone: str = _INCEPTION,
        weights: WeightSource = "timm",
        side: Annotated[int, Field(ge=8)] | None = None,
    ) -> None:
        super().__init__(backbone, weights, side)

    def make(self, feature: Any, **options: Any) -> "Metric":
        from torchmetrics.image.fid import FrechetInceptionDistance

        return FrechetInceptionDistance(feature, **options)

    def compute(self) -> dict[str, float]:
        metric: Any = self._get()
        self._need((int(metric.fake_features_num_samples), int(metric.real_features_num_samples)))
        return {"fid": float(metric.compute())}


class KernelDistance(_SetDistance):
    """KID (Bińkowski et al. 2018): the squared maximum mean discrepancy of the features of two sets, unbiased, cubic kernel.

    Without `subsets` it is computed once from all images; with them, it is the mean over random subsets, as in the paper, and
    `kid_std` their deviation.

    Args:
        backbone: As for FID.
        weights: As for FID.
        side: As for FID.
        subsets: Random subsets; 0 takes all images at once.
        subset_size: Images of a subset.
    """

    def __init__(
        self,
        *,
        backbone: str = _INCEPTION,
        weights: WeightSource = "timm",
        side: Annotated[int, Field(ge=8)] | None = None,
        subsets: Annotated[int, Field(ge=0)] = 0,
        subset_size: Annotated[int, Field(ge=2)] = 100,
    ) -> None:
        super().__init__(backbone, weights, side)
        self.subsets, self.subset_size = subsets, subset_size

    def make(self, feature: Any, **options: Any) -> "Metric":
        from torchmetrics.image.kid import KernelInceptionDistance

        # It warns of the memory that features take; these sets are small.
        return _quietly(lambda: KernelInceptionDistance(feature, subsets=1, subset_size=2, **options))

    def compute(self) -> dict[str, float]:
        metric: Any = self._get()
        counts = tuple(sum(map(len, rows)) for rows in (metric.fake_features, metric.real_features))
        self._need((counts[0], counts[1]))
        metric.subsets = max(1, self.subsets)
        metric.subset_size = min(*counts, self.subset_size) if self.subsets else min(counts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the subsets are the same each time
            mean, deviation = metric.compute()
        return {"kid": float(mean), **({"kid_std": float(deviation)} if self.subsets else {})}


def _quietly(make: Callable[[], Any]) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
