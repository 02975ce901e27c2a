"""How fresh networks get their weights; every draw comes from the generator that is given.

Biases become 0, whatever the initializer; batch norm's weights are drawn from N(1, 0.02) and its biases become 0. What is
frozen, such as a pretrained part, stays as it is.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

_NORM_STD = 0.02


class Normal:
    """N(0, std) for every convolution and linear layer (Zhu et al. 2017, appendix 7.1).

    Args:
        std: Standard deviation.
    """

    def __init__(self, *, std: Annotated[float, Field(gt=0)] = 0.02) -> None:
        self.std = std

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        _initialize(network, generator, lambda weight: nn.init.normal_(weight, 0.0, self.std, generator=generator))


class Xavier:
    """Normal with the variance of Glorot and Bengio 2010.

    Args:
        gain: Factor on the standard deviation.
    """

    def __init__(self, *, gain: Annotated[float, Field(gt=0)] = 1.0) -> None:
        self.gain = gain

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        _initialize(network, generator, lambda weight: nn.init.xavier_normal_(weight, self.gain, generator=generator))


class Kaiming:
    """Normal with the variance of He et al. 2015, for leaky ReLUs.

    Args:
        slope: Slope of the activation's negative side; 0 is a plain ReLU.
    """

    def __init__(self, *, slope: Annotated[float, Field(ge=0)] = 0.0) -> None:
        self.slope = slope

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        _initialize(network, generator, lambda weight: nn.init.kaiming_normal_(weight, self.slope, generator=generator))


class Orthogonal:
    """Orthogonal rows or columns (Saxe et al. 2014).

    Args:
        gain: Factor on the weights.
    """

    def __init__(self, *, gain: Annotated[float, Field(gt=0)] = 1.0) -> None:
        self.gain = gain

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        _initialize(network, generator, lambda weight: nn.init.orthogonal_(weight, self.gain, generator=generator))


_Weighted = nn.modules.conv._ConvNd | nn.Linear


def _initialize(network: nn.Module, generator: torch.Generator, draw: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, _Weighted):
                # A parametrised weight (spectral norm) is computed; its original is what can be set.
                weight = dict(module.named_parameters()).get("parametrizations.weight.original", module.weight)
                if weight.requires_grad:
                    draw(weight)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                if module.weight.requires_grad:
                    nn.init.normal_(module.weight, 1.0, _NORM_STD, generator=generator)
            else:
                continue
            if module.bias is not None and module.bias.requires_grad:
                nn.init.zeros_(module.bias)
