"""The recipes whose steps run on the stand-in: every system, those of the plugins, and every kind of block."""

from _helpers.recipes import LITE0, TINY_RECIPES
from _helpers.small import TINY

from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit_cut import cut, fastcut

__all__ = ["RECIPES"]

PATCHES = {"nce_layers": ["layers.0", "layers.4"], "patches": 16, "head_width": 8}
PROJECTED = {"name": "projected", "features": LITE0, "layers": ["blocks.1", "blocks.2"], "width": 4}
VIT = {"name": "vit_unet", "width": 4, "blocks": 1, "features": 12, "heads": 2}


def _cyclegan(**changes: object) -> Recipe:
    return cyclegan().swap(TINY).swap(changes)


RECIPES: dict[str, Recipe] = {
    **TINY_RECIPES,
    "cut": cut().swap({**TINY, **PATCHES}),
    "fastcut": fastcut().swap({**TINY, **PATCHES}),
    "vit": _cyclegan(generator=VIT),
    "projected": _cyclegan(discriminator=PROJECTED),
    "diffaugment": _cyclegan(discriminator={"name": "diffaugment", "discriminator": TINY["discriminator"]}),
    "ada": _cyclegan(discriminator={"name": "ada", "discriminator": TINY["discriminator"]}),
    "nll": _cyclegan(adversarial_loss="nll"),
    "hinge": _cyclegan(adversarial_loss="hinge"),
    "wgan_gp": _cyclegan(adversarial_loss="wgan_gp"),
    "ssim": _cyclegan(cycle_loss="ssim"),
    "l2": _cyclegan(cycle_loss="l2"),
    "replicate": _cyclegan(**{"generator.padding": "replicate"}),
    "zero": _cyclegan(**{"generator.padding": "zero"}),
    "resize": _cyclegan(**{"generator.upsampling": "resize"}),
    "dropout": _cyclegan(**{"generator.dropout": 0.5}),
    "batch_norm": _cyclegan(**{"generator.norm": "batch", "discriminator.norm": "batch"}),
    "spectral_norm": _cyclegan(**{"discriminator.spectral_norm": True}),
    "pixelgan": _cyclegan(discriminator={"name": "pixelgan", "width": 4}),
    "unet": _cyclegan(generator={"name": "unet", "width": 4, "depth": 3}),
    "no_pool": _cyclegan(image_pool="none"),
    "batch_2": _cyclegan(**{"training.batch_size": 2}),
    "sgd": _cyclegan(optimizer="sgd"),
    "rmsprop": _cyclegan(optimizer="rmsprop"),
    "adamw": _cyclegan(optimizer="adamw"),
}
