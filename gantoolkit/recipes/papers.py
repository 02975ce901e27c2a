"""The systems with their papers' blocks and settings.

Called without arguments, each gives the settings of the paper; for the baselines of CycleGAN, those of its comparison, which
took CycleGAN's own networks and optimiser for all of them but CoGAN (Zhu et al. 2017, §5.1.1).
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, ParamSpec

from gantoolkit.errors import RecipeError
from gantoolkit.recipe import Recipe
from gantoolkit.registry import suggest

P = ParamSpec("P")

Changes = Mapping[str, Any]


class _Ablatable(Generic[P]):
    """A recipe function that also knows its paper's ablations by name, and the versions of its official code.

    Args:
        make: The function.
        ablations: Changes by name.
        fidelities: Changes by the value of the argument `fidelity`; they give way to what else is asked for.
    """

    def __init__(
        self, make: Callable[P, Recipe], *, ablations: Mapping[str, Changes], fidelities: Mapping[str, Changes]
    ) -> None:
        self._make = make
        self._ablations = ablations
        self._fidelities = fidelities
        self.__name__ = make.__name__.removeprefix("_")
        self.__doc__ = make.__doc__
        self.__wrapped__ = make

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Recipe:
        recipe = self._make(*args, **kwargs)
        fidelity = kwargs.get("fidelity", "paper")
        if not isinstance(fidelity, str) or fidelity not in self._fidelities:
            known = ", ".join(self._fidelities)
            raise RecipeError(f"{self.__name__}: fidelity cannot be {fidelity!r}; it is one of {known}")
        changes = self._fidelities[fidelity]
        return recipe.swap({path: value for path, value in changes.items() if not _is_given(path, kwargs)})

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
        return self(*args, **kwargs).swap(self._ablations[name], name=f"{self.__name__}-{name}")


def _is_given(path: str, arguments: Mapping[str, Any]) -> bool:
    field, _, inside = path.partition(".")
    given = arguments.get(field)
    return inside in given if isinstance(given, Mapping) and "name" not in given else given is not None


def make_recipe(name: str, given: Changes, *, system: str | None = None) -> Recipe:
    """What a recipe function returns, from its arguments.

    Args:
        name: The function's name; it is the recipe's name and its `base`.
        given: All arguments by name (`locals()`): blocks and parameters of the system, and fields of the recipe. `data` and
            `training` are tables, or None, that change single settings.
        system: The system's name, where it is not that of the recipe.

    Raises:
        RecipeError: When an argument does not fit.
    """
    blocks = {key: value for key, value in given.items() if key not in ("data", "training", "fidelity")}
    base = Recipe.from_mapping({"name": name, "base": name, "system": system or name, **blocks})
    return base.swap({"data": given["data"] or {}, "training": given["training"] or {}})


def _cyclegan(
    *,
    fidelity: Literal["paper", "pytorch", "lua"] = "paper",
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    cycle_loss: Any = "l1",
    identity_loss: Any = "l1",
    image_pool: Any = "history",
    adversarial_weight: float | tuple[float, float] = 1.0,
    cycle_weight: float | tuple[float, float] = 10.0,
    identity_weight: float | tuple[float, float] = 0.0,
    adversarial_cycle_weight: float | tuple[float, float] = 0.0,
    discriminator_factor: float = 0.5,
    alternating: bool = False,
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """CycleGAN with the paper's settings (Zhu et al. 2017): 256×256 crops, 200 epochs, batch 1, no identity term.

    A block is a name, a table with a name and parameters, a `Block`, or a class. The other arguments are those of the
    system (`gantoolkit blocks show systems/cyclegan`); `data` and `training` change fields of these settings. `fidelity`
    chooses between the paper, the official PyTorch code as it is today, and the authors' first code in Lua Torch, where these
    differ; what else is given goes before it.
    """
    return make_recipe("cyclegan", locals())


cyclegan = _Ablatable(
    _cyclegan,
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


def pix2pix(
    *,
    generator: Any = {"name": "unet", "norm": "batch", "dropout": 0.5, "noise_at_test": True},  # noqa: B006 (never changed)
    discriminator: Any = {"name": "patchgan", "norm": "batch"},  # noqa: B006
    adversarial_loss: Any = "nll",
    image_loss: Any = "l1",
    adversarial_weight: float = 1.0,
    image_weight: float = 100.0,
    direction: Literal["A2B", "B2A"] = "A2B",
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """pix2pix with the paper's settings (Isola et al. 2017): U-Net with batch norm and dropout, NLL + 100·L1, batch 1.

    It learns from pairs: image i of trainA and image i of trainB show the same thing. Dropout, its only source of noise, stays
    on when it translates.
    """
    return make_recipe("pix2pix", locals())


def simgan(
    *,
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    self_regularization_loss: Any = "l1",
    image_pool: Any = "history",
    adversarial_weight: float = 1.0,
    self_regularization_weight: float = 10.0,
    direction: Literal["A2B", "B2A"] = "A2B",
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """SimGAN (Shrivastava et al. 2017) as CycleGAN was compared with it: one direction, and little change in pixels."""
    return make_recipe("simgan", locals())


def feature_gan(
    *,
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    self_regularization_loss: Any = {"name": "features", "features": "timm", "side": 224},  # noqa: B006
    image_pool: Any = "history",
    adversarial_weight: float = 1.0,
    self_regularization_weight: float = 10.0,
    direction: Literal["A2B", "B2A"] = "A2B",
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """Feature loss + GAN (Zhu et al. 2017, §5.1.1): SimGAN, but little change in VGG-16's relu4_2 instead of in pixels."""
    return make_recipe("feature_gan", locals(), system="simgan")


def bigan(
    *,
    generator: Any = "resnet",
    discriminator: Any = "patchgan",
    adversarial_loss: Any = "lsgan",
    image_pool: Any = "history",
    adversarial_weight: float = 1.0,
    optimizer: Any = "adam",
    scheduler: Any = "constant_then_linear",
    initializer: Any = "normal",
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """BiGAN / ALI (Donahue et al. 2017; Dumoulin et al. 2017) as CycleGAN was compared with it: one discriminator of pairs."""
    return make_recipe("bigan", locals())


def cogan(
    *,
    coupled_generator: Any = "dcgan",
    coupled_discriminator: Any = "dcgan",
    adversarial_loss: Any = "nll",
    search_loss: Any = "l2",
    search_steps: int = 200,
    search_rate: float = 0.05,
    optimizer: Any = "adam",
    scheduler: Any = "constant",
    initializer: Any = "normal",
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """CoGAN (Liu and Tuzel 2016): 64×64 images, batches of 128; it translates by searching the latent of an image."""
    recipe = make_recipe("cogan", {**locals(), "data": {}, "training": {}})
    settings = {"load_size": 72, "crop_size": 64, **(data or {})}
    return recipe.swap({"data": settings, "training": {"batch_size": 128, **(training or {})}})


def gatys(
    *,
    features: Any = {"name": "timm", "backbone": "vgg19"},  # noqa: B006
    content_layer: str = "relu4_2",
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    content_weight: float = 1.0,
    style_weight: float = 1e3,
    start: Literal["content", "noise"] = "content",
    steps: int = 200,
    levels: int = 2,
    data: Changes | None = None,
    training: Changes | None = None,
) -> Recipe:
    """Neural style transfer (Gatys et al. 2016): trainB is the style, one image or many; translating optimises pixels.

    Training looks at the style once. `data.load_size` is the size at which brush strokes are seen.
    """
    recipe = make_recipe("gatys", {**locals(), "data": {}, "training": {}})
    settings = {"resize": "shorter_side", "load_size": 512, "crop_size": 512, "flip": False, **(data or {})}
    return recipe.swap({"data": settings, "training": {"epochs": 1, "samples": 1, **(training or {})}})
