"""FID and KID: distances between two sets of images in the features of a pretrained network, computed by torchmetrics."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.features import WeightSource, create_backbone, normalize
from gantoolkit.errors import CheckpointError, DataError, RecipeError, first_line
from gantoolkit.files.paths import user_path

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["FrechetDistance", "KernelDistance"]

_INCEPTION = "inception"
_INCEPTION_SIDE = 299


class _Features(nn.Module):
    """Map images (N, C, H, W) in [−1, 1] to one feature vector each, with a timm network."""

    def __init__(self, backbone: str, weights: str, side: int) -> None:
        super().__init__()
        self.network = create_backbone(backbone, weights, num_classes=0).eval().requires_grad_(False)
        self.backbone, self.side = backbone, side
        with torch.no_grad():
            self.num_features = self(torch.zeros(1, 3, side, side)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        resized = functional.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(-1, 1)
        return self.network(normalize(resized, self.backbone)).double()


class _SetDistance:
    """Collect the features of fake and real images; torchmetrics computes the distance."""

    against: Literal["domain"] = "domain"
    higher_is_better = False
    any_device = True

    def __init__(self, backbone: str, weights: str, side: int | None) -> None:
        self._backbone, self._weights = backbone, weights
        inception = backbone == _INCEPTION
        self._side = side or (_INCEPTION_SIDE if inception else 224)
        if inception and (side not in (None, _INCEPTION_SIDE) or weights.partition(":")[0] not in ("timm", "file")):
            raise RecipeError(
                "backbone = 'inception' accepts only side = 299 and weights = 'timm' (the default download) or "
                "'file:<path>'; for other settings, use a timm network as backbone"
            )
        resizing = "by torch-fidelity, bilinear as in TensorFlow" if inception else "bicubic with antialiasing"
        source = "" if weights == "timm" else f" ({weights})"
        self.notes = f"features of {backbone}{source}, images resized to {self._side}×{self._side} {resizing}"
        self._metric: Metric | None = None

    def update(self, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            for batch, real in ((images, False), (targets, True)):
                metric = self._load().to(batch.device)
                colors = batch.detach().expand(-1, 3, -1, -1)
                rounded = ((colors.clamp(-1, 1) + 1) * 127.5).round().byte()
                # torch-fidelity's Inception takes bytes; a timm network takes the same values as floats.
                metric.update(rounded if self._backbone == _INCEPTION else rounded.float() / 127.5 - 1, real=real)

    def reset(self) -> None:
        if self._metric is not None:
            self._metric.reset()
            self._metric.cpu()

    def build(self, feature: Any, **options: Any) -> "Metric":
        """Build the torchmetrics metric on these features."""
        raise NotImplementedError

    def _load(self) -> "Metric":
        if self._metric is None:
            if self._backbone == _INCEPTION:
                self._metric = self._build_on_inception()
            else:
                self._metric = self.build(_Features(self._backbone, self._weights, self._side))
        return self._metric

    def _build_on_inception(self) -> "Metric":
        file = self._weights.removeprefix("file:") if self._weights.startswith("file:") else None
        path = None if file is None else str(user_path(file))
        try:
            with torch.random.fork_rng(devices=[]):
                return self.build(2048, feature_extractor_weights_path=path)
        except ModuleNotFoundError as error:
            raise RecipeError(
                "FID's Inception network requires torch-fidelity: pip install torch-fidelity; or use a timm network as backbone"
            ) from error
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights of FID's Inception network could not be loaded ({first_line(error)}); download "
                "pt_inception-2015-12-05-6726825d.pth from the releases of torch-fidelity and set weights = "
                '"file:<path>", or use a timm network as backbone'
            ) from error

    def _check_counts(self, fakes: int, reals: int) -> None:
        if min(fakes, reals) < 2:
            raise DataError(f"a distance between sets requires at least two images of each; got {fakes} and {reals}")


class FrechetDistance(_SetDistance):
    """FID (Heusel et al. 2017): the Fréchet distance between Gaussians fitted to the features of two sets.

    FID is biased upwards for small sets. Compare only values for the same number of images, the same network and the same
    resizing.

    Args:
        backbone: `inception`, the network of FID's authors as ported by torch-fidelity; or any timm network.
        weights: For a timm network: timm, none, file:<path> or package:<distribution>. For Inception: timm (the default
            download) or file:<path>.
        side: Side in pixels to which images are resized. Defaults to 299 for Inception and 224 for other networks.
    """

    def __init__(
        self,
        *,
        backbone: str = _INCEPTION,
        weights: WeightSource = "timm",
        side: Annotated[int, Field(ge=8)] | None = None,
    ) -> None:
        super().__init__(backbone, weights, side)

    def build(self, feature: Any, **options: Any) -> "Metric":
        from torchmetrics.image.fid import FrechetInceptionDistance

        return FrechetInceptionDistance(feature, **options)

    def compute(self) -> dict[str, float]:
        # On the CPU, because PyTorch's eigenvalues on CUDA require a library that not every build has.
        metric: Any = self._load().cpu()
        self._check_counts(int(metric.fake_features_num_samples), int(metric.real_features_num_samples))
        return {"fid": float(metric.compute())}


class KernelDistance(_SetDistance):
    """KID (Bińkowski et al. 2018): the squared maximum mean discrepancy of the features of two sets, unbiased, cubic kernel.

    With `subsets=0` it is computed once from all images. Otherwise it is the mean over random subsets, as in the paper, and
    `kid_std` is their standard deviation.

    Args:
        backbone: As for FID.
        weights: As for FID.
        side: As for FID.
        subsets: Number of random subsets; 0 uses all images at once.
        subset_size: Images per subset.
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

    def build(self, feature: Any, **options: Any) -> "Metric":
        from torchmetrics.image.kid import KernelInceptionDistance

        # torchmetrics warns about the memory of the features; these sets are small.
        return _without_warnings(lambda: KernelInceptionDistance(feature, subsets=1, subset_size=2, **options))

    def compute(self) -> dict[str, float]:
        metric: Any = self._load().cpu()
        fakes, reals = (sum(map(len, rows)) for rows in (metric.fake_features, metric.real_features))
        self._check_counts(fakes, reals)
        metric.subsets = max(1, self.subsets)
        metric.subset_size = min(fakes, reals, self.subset_size) if self.subsets else min(fakes, reals)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same subsets in every call
            mean, deviation = metric.compute()
        return {"kid": float(mean), **({"kid_std": float(deviation)} if self.subsets else {})}


def _without_warnings(build: Callable[[], Any]) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()
