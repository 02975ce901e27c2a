"""Initialize the weights of new networks, with all random numbers from the given generator.

Every initializer sets biases to 0 and draws the weights of batch norm from N(1, 0.02). Frozen parameters, such as those of a
pretrained part, do not change.
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
    """Normal distribution with the variance of Glorot and Bengio 2010.

    Args:
        gain: Factor on the standard deviation.
    """

    def __init__(self, *, gain: Annotated[float, Field(gt=0)] = 1.0) -> None:
        self.gain = gain

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        _initialize(network, generator, lambda weight: nn.init.xavier_normal_(weight, self.gain, generator=generator))


class Kaiming:
    """Normal distribution with the variance of He et al. 2015, for leaky ReLUs.

    Args:
        slope: Negative slope of the activation; 0 is a plain ReLU.
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


_WeightedLayer = nn.modules.conv._ConvNd | nn.Linear


def _initialize(network: nn.Module, generator: torch.Generator, initialize: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, _WeightedLayer):
                # A parametrized weight (spectral norm) is computed; only its original can be set.
                weight = dict(module.named_parameters()).get("parametrizations.weight.original", module.weight)
                if weight.requires_grad:
                    initialize(weight)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                if module.weight.requires_grad:
                    nn.init.normal_(module.weight, 1.0, _NORM_STD, generator=generator)
            else:
                continue
            if module.bias is not None and module.bias.requires_grad:
                nn.init.zeros_(module.bias)
