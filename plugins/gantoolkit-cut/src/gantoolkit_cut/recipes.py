"""CUT and FastCUT with the paper's settings (Park et al. 2020, §4 and appendix C)."""

from collections.abc import Mapping
from typing import Any, Literal

from gantoolkit.recipe import Recipe
from gantoolkit.recipes import make_recipe


def cut(
    *,
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    image_pool: Any = "none",
    nce_weight: float = 1.0,
    identity_nce: bool = True,
    flip_equivariance: bool = False,
    direction: Literal["A2B", "B2A"] = "A2B",
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = {"name": "xavier", "gain": 0.02},  # noqa: B006 (never changed)
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Recipe:
    """CUT: patches of the translation resemble those of the input; with the identity term, 400 epochs."""
    return make_recipe("cut", {**locals(), "training": {"epochs": 400, **(training or {})}})


def fastcut(
    *,
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    image_pool: Any = "none",
    nce_weight: float = 10.0,
    identity_nce: bool = False,
    flip_equivariance: bool = True,
    direction: Literal["A2B", "B2A"] = "A2B",
    optimizer: Any = "adam",
    scheduler: Any = {"name": "constant_then_linear", "decay_epochs": 50},  # noqa: B006
    initializer: Any = {"name": "xavier", "gain": 0.02},  # noqa: B006
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Recipe:
    """FastCUT: no identity term but flip equivariance and ten times the weight; 200 epochs, the last 50 with falling rate."""
    return make_recipe("fastcut", locals(), system="cut")
