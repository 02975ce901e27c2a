"""The systems with their papers' blocks and settings."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec

from gantoolkit.block import Block
from gantoolkit.errors import RecipeError
from gantoolkit.recipe import Recipe
from gantoolkit.registry import suggest

P = ParamSpec("P")


class _Ablatable(Generic[P]):
    """A recipe function that also knows its paper's ablations by name."""

    def __init__(self, make: Callable[P, Recipe], ablations: Mapping[str, Mapping[str, Any]]) -> None:
        self._make = make
        self._ablations = ablations
        self.__name__ = make.__name__
        self.__doc__ = make.__doc__
        self.__wrapped__ = make

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Recipe:
        return self._make(*args, **kwargs)

    @property
    def ablations(self) -> tuple[str, ...]:
        """The names that `ablation` takes."""
        return tuple(self._ablations)

    def ablation(self, name: str, *args: P.args, **kwargs: P.kwargs) -> Recipe:
        """The recipe with some of its terms left out or exchanged; further arguments as for the recipe itself.

        Raises:
            RecipeError: When there is no ablation of that name.
        """
        if name not in self._ablations:
            meant = suggest(name, self._ablations)
            hint = f" Did you mean '{meant}'?" if meant else ""
            raise RecipeError(f"{self.__name__}: no ablation '{name}'.{hint} Known: {', '.join(self._ablations)}")
        recipe = self._make(*args, **kwargs).swap(self._ablations[name])
        return recipe.model_copy(update={"name": f"{self.__name__}-{name}"})


def _cyclegan(
    *,
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    cycle_loss: Any = "l1",
    identity_loss: Any = "l1",
    image_pool: Any = "history",
    adversarial_weight: float | tuple[float, float] = 1.0,
    cycle_weight: float | tuple[float, float] = 10.0,
    identity_weight: float | tuple[float, float] = 0.0,
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Recipe:
    """CycleGAN with the paper's settings (Zhu et al. 2017): 256×256 crops, 200 epochs, batch 1, no identity term.

    A block is a name, a table with a name and parameters, a `Block`, or a class. The other arguments are those of the
    system (`gantoolkit blocks show cyclegan`); `data` and `training` change fields of these settings.
    """
    given = {key: value for key, value in locals().items() if key not in ("data", "training")}
    base = Recipe.from_mapping({"name": "cyclegan", "system": "cyclegan", **given})
    return base.swap({"data": data or {}, "training": training or {}})


cyclegan = _Ablatable(
    _cyclegan,
    {
        "cycle_alone": {"adversarial_weight": 0.0},
        "gan_alone": {"cycle_weight": 0.0},
        "gan_forward": {"cycle_weight": [10.0, 0.0]},
        "gan_backward": {"cycle_weight": [0.0, 10.0]},
        "nll": {"adversarial_loss": "nll"},
        "no_pool": {"image_pool": "none"},
        "identity": {"identity_weight": 5.0},
    },
)
cyclegan.__name__ = "cyclegan"


def pix2pix(
    *,
    generator: Any = None,
    discriminator: Any = None,
    adversarial_loss: Any = "nll",
    image_loss: Any = "l1",
    adversarial_weight: float = 1.0,
    image_weight: float = 100.0,
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Recipe:
    """pix2pix with the paper's settings (Isola et al. 2017): U-Net with batch norm and dropout, NLL + 100·L1, batch 1.

    It learns from pairs: image i of trainA and image i of trainB show the same thing.
    """
    given = {key: value for key, value in locals().items() if key not in ("data", "training")}
    given["generator"] = generator or Block.of("unet", norm="batch", dropout=0.5)
    given["discriminator"] = discriminator or Block.of("patchgan", norm="batch")
    base = Recipe.from_mapping({"name": "pix2pix", "system": "pix2pix", **given})
    return base.swap({"data": data or {}, "training": training or {}})
