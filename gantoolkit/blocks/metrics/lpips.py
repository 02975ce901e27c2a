"""LPIPS: a distance in the features of a pretrained network, calibrated on human judgments (Zhang et al. 2018)."""

from typing import Literal

import torch
from torch import Tensor, nn

from gantoolkit.blocks.metrics.paired import MeanOverImages
from gantoolkit.errors import CheckpointError

__all__ = ["LearnedPerceptualSimilarity"]


class LearnedPerceptualSimilarity(MeanOverImages):
    """LPIPS from torchmetrics, which ships the linear heads; the weights of the backbone are torchvision's.

    Args:
        net: The backbone: alex, vgg or squeeze.
    """

    name = "lpips"
    higher_is_better = False

    def __init__(self, *, net: Literal["alex", "vgg", "squeeze"] = "alex") -> None:
        super().__init__()
        self.net: Literal["alex", "vgg", "squeeze"] = net
        self.notes = f"LPIPS through {net}"
        self._network: nn.Module | None = None

    def measure(self, images: Tensor, targets: Tensor) -> Tensor:
        network = self._load().to(images.device)
        pairs = [batch.float().expand(-1, 3, -1, -1) for batch in (images, targets)]
        with torch.no_grad():
            return network(*pairs).double().reshape(len(images))

    def reset(self) -> None:
        super().reset()
        if self._network is not None:
            self._network.cpu()

    def _load(self) -> nn.Module:
        if self._network is None:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            try:
                with torch.random.fork_rng(devices=[]):
                    self._network = LearnedPerceptualImagePatchSimilarity(net_type=self.net, reduction="none").net
            except OSError as error:
                raise CheckpointError(
                    f"lpips: torchvision's weights of {self.net} could not be downloaded ({error}); run it once on a machine "
                    f"with network access, then copy its {torch.hub.get_dir()}/checkpoints here"
                ) from error
        return self._network
