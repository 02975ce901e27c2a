"""CUT and FastCUT with the paper's settings (Park et al. 2020, §4 and appendix C)."""

from collections.abc import Mapping
from typing import Any

from gantoolkit.recipes import recipe_function


@recipe_function("cut")
def cut() -> Mapping[str, Any]:
    """CUT: patches of a translation resemble those of its input; with the identity term, 400 epochs."""
    return {
        "generator": "resnet",
        "discriminator": "patchgan",
        "adversarial_loss": "lsgan",
        "image_pool": "none",
        "initializer": {"name": "xavier", "gain": 0.02},
        "training": {"epochs": 400},
    }


@recipe_function("cut")
def fastcut() -> Mapping[str, Any]:
    """FastCUT: flip equivariance in place of the identity term, and ten times the weight; 200 epochs, the last 50 with
    decay.
    """
    return {
        "generator": "resnet",
        "discriminator": "patchgan",
        "adversarial_loss": "lsgan",
        "image_pool": "none",
        "nce_weight": 10.0,
        "identity_nce": False,
        "flip_equivariance": True,
        "initializer": {"name": "xavier", "gain": 0.02},
        "scheduler": {"name": "constant_then_linear", "decay_epochs": 50},
    }
