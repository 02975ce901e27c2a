"""The systems with their papers' blocks and settings.

Called without arguments, each recipe function gives the settings of its paper; those of the baselines are the settings of
CycleGAN's comparison, which used CycleGAN's own networks and optimizer for all of them but CoGAN (Zhu et al. 2017, §5.1.1).

A recipe function lists only what its paper sets differently from the defaults of the system's signature, and the blocks:

>>> recipe = pix2pix(image_weight=50.0, data={"crop_size": 128}, training={"epochs": 10})
>>> recipe.system.parameters["discriminator"], recipe.data.crop_size
({'name': 'patchgan', 'norm': 'batch'}, 128)
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gantoolkit.errors import RecipeError, did_you_mean
from gantoolkit.plugins import systems
from gantoolkit.recipes.recipe import Recipe
from gantoolkit.registry.signature import read_parameters

__all__ = [
    "RecipeFunction",
    "bigan",
    "cogan",
    "cyclegan",
    "feature_gan",
    "gatys",
    "pix2pix",
    "recipe_function",
    "simgan",
]

Changes = Mapping[str, Any]

_CYCLEGAN_BLOCKS: Changes = {
    "generator": "resnet",
    "discriminator": "patchgan",
    "adversarial_loss": "lsgan",
    "image_pool": "history",
}
"""The blocks of CycleGAN, which its comparison uses for the baselines too."""


class RecipeFunction:
    """A function that returns the recipe of a paper, with any field changed by a keyword argument.

    Keywords are the parameters of the system (`gantoolkit blocks show systems/cyclegan`) and the fields of `Recipe`. A block is
    a name, a table with a name and parameters, a `BlockSpec`, or a class. `data` and `training` are tables that change single
    settings. Names are checked when the recipe is resolved, which imports the system.

    Args:
        settings: Returns what the paper sets; its name and docstring become those of the recipe function.
        system: The name of the system.
        ablations: The paper's ablations: changes by name.
        fidelities: The versions of the method that the argument `fidelity` chooses from: changes by name. The first is the
            default. Other arguments take precedence.
    """

    def __init__(
        self,
        settings: Callable[[], Changes],
        system: str,
        ablations: Mapping[str, Changes],
        fidelities: Mapping[str, Changes],
    ) -> None:
        self.__name__ = self.__qualname__ = settings.__name__
        self.__doc__ = settings.__doc__
        self.__module__ = settings.__module__
        self.system = system
        self.arguments = ("fidelity",) if fidelities else ()
        """Keywords that are not fields of the recipe."""
        self._settings, self._ablations, self._fidelities = settings, ablations, fidelities

    def __call__(self, **changes: Any) -> Recipe:
        """The recipe.

        Raises:
            RecipeError: When an argument does not fit.
        """
        version = {}
        if self._fidelities:
            fidelity = changes.pop("fidelity", next(iter(self._fidelities)))
            if not isinstance(fidelity, str) or fidelity not in self._fidelities:
                known = ", ".join(self._fidelities)
                raise RecipeError(f"{self.__name__}: fidelity cannot be {fidelity!r}; it is one of {known}")
            version = self._fidelities[fidelity]
        recipe = Recipe.from_mapping({"name": self.__name__, "base": self.__name__, "system": self.system})
        return recipe.swap(self._settings()).swap(version).swap(changes)

    @property
    def __signature__(self) -> inspect.Signature:
        """The parameters of the system with the defaults of the paper; imports the system."""
        settings = self._settings()
        parameters = read_parameters(systems.get(self.system)).values()
        return inspect.Signature(
            [
                inspect.Parameter(
                    parameter.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=settings.get(parameter.name, parameter.default),
                    annotation=parameter.annotation,
                )
                for parameter in parameters
            ],
            return_annotation=Recipe,
        )

    @property
    def ablations(self) -> tuple[str, ...]:
        """The names that `ablation` accepts."""
        return tuple(self._ablations)

    def ablation(self, name: str, **changes: Any) -> Recipe:
        """The recipe with some of its terms removed or swapped; further arguments as for the recipe itself.

        Raises:
            RecipeError: When there is no ablation of that name.
        """
        if name not in self._ablations:
            hint = did_you_mean(name, self._ablations)
            raise RecipeError(f"{self.__name__}: no ablation '{name}'.{hint} Known: {', '.join(self._ablations)}")
        return self(**changes).swap(self._ablations[name], name=f"{self.__name__}-{name}")


def recipe_function(
    system: str, *, ablations: Mapping[str, Changes] = {}, fidelities: Mapping[str, Changes] = {}
) -> Callable[[Callable[[], Changes]], RecipeFunction]:
    """Turn a function that returns a paper's settings into a recipe function; see `RecipeFunction` for the arguments."""
    return lambda settings: RecipeFunction(settings, system, ablations, fidelities)


@recipe_function(
    "cyclegan",
    ablations={
        "cycle_alone": {"adversarial_weight": 0.0},
        "gan_alone": {"cycle_weight": 0.0},
        "gan_forward": {"cycle_weight": [10.0, 0.0]},
        "gan_backward": {"cycle_weight": [0.0, 10.0]},
        "adversarial_cycle": {"cycle_weight": 0.0, "adversarial_cycle_weight": 1.0},
        "nll": {"adversarial_loss": "nll"},
        "no_pool": {"image_pool": "none"},
        "identity": {"identity_weight": 5.0},
        "no_identity": {"identity_weight": 0.0},
    },
    fidelities={
        "paper": {},
        "pytorch": {"identity_weight": 5.0, "scheduler.zero": "last"},
        "lua": {
            "identity_weight": 5.0,
            "alternating": True,
            "discriminator_factor": 1.0,
            "generator.norm": "instance_affine",
            "generator.blocks": 6,
            "discriminator.norm": "instance_affine",
            "discriminator.padding": 2,
            "scheduler.zero": "lua",
            "data.load_size": 143,
            "data.crop_size": 128,
        },
    },
)
def cyclegan() -> Changes:
    """CycleGAN with the paper's settings (Zhu et al. 2017): 256×256 crops, 200 epochs, batch 1, no identity term.

    `fidelity` chooses between the paper, the official PyTorch code as it is today (`pytorch`), and the authors' first code in
    Lua Torch (`lua`), where these differ.
    """
    return {**_CYCLEGAN_BLOCKS, "cycle_loss": "l1", "identity_loss": "l1"}


@recipe_function("pix2pix")
def pix2pix() -> Changes:
    """pix2pix with the paper's settings (Isola et al. 2017): U-Net with batch norm and dropout, NLL + 100·L1, batch 1.

    It learns from pairs: image i of trainA and image i of trainB show the same thing. Dropout is its only source of noise and
    stays on when it translates.
    """
    return {
        "generator": {"name": "unet", "norm": "batch", "dropout": 0.5, "noise_at_test": True},
        "discriminator": {"name": "patchgan", "norm": "batch"},
        "adversarial_loss": "nll",
        "image_loss": "l1",
    }


@recipe_function("simgan")
def simgan() -> Changes:
    """SimGAN (Shrivastava et al. 2017) as in CycleGAN's comparison: one direction, and a penalty on changed pixels."""
    return {**_CYCLEGAN_BLOCKS, "self_regularization_loss": "l1"}


@recipe_function("simgan")
def feature_gan() -> Changes:
    """Feature loss + GAN (Zhu et al. 2017, §5.1.1): SimGAN with its penalty on VGG-16's relu4_2 instead of pixels."""
    distance = {"name": "features", "features": "timm", "side": 224}
    return {**_CYCLEGAN_BLOCKS, "self_regularization_loss": distance}


@recipe_function("bigan")
def bigan() -> Changes:
    """BiGAN / ALI (Donahue et al. 2017; Dumoulin et al. 2017) as in CycleGAN's comparison: one discriminator of pairs."""
    return _CYCLEGAN_BLOCKS


@recipe_function("cogan")
def cogan() -> Changes:
    """CoGAN (Liu and Tuzel 2016): 64×64 images, batches of 128; it translates by searching for the latent of an image."""
    return {
        "coupled_generator": "dcgan",
        "coupled_discriminator": "dcgan",
        "adversarial_loss": "nll",
        "search_loss": "l2",
        "scheduler": "constant",
        "data": {"load_size": 72, "crop_size": 64},
        "training": {"batch_size": 128},
    }


@recipe_function("gatys")
def gatys() -> Changes:
    """Neural style transfer (Gatys et al. 2016): trainB is the style, one image or many; translating optimizes pixels.

    Training reads the style once. `data.load_size` is the size at which brush strokes are seen.
    """
    return {
        "features": {"name": "timm", "backbone": "vgg19"},
        "data": {"resize": "shorter_side", "load_size": 512, "crop_size": 512, "flip": False},
        "training": {"epochs": 1, "samples": 1},
    }
