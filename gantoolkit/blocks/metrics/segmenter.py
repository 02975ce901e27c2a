"""Segmentation networks for the FCN score: they predict a class for each pixel of a photograph."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.features import load_backbone_weights, normalize
from gantoolkit.blocks.metrics.palette import Palette
from gantoolkit.errors import CheckpointError, RecipeError, did_you_mean, first_line, requires_extra
from gantoolkit.files.paths import user_path
from gantoolkit.files.tensors import check_header, read_header, read_tensors, write_tensors
from gantoolkit.files.untrusted_weights import read_weights

__all__ = ["Segmenter", "load_segmenter", "make_segmenter", "save_segmenter"]

_FORMAT = "gantoolkit segmenter 1"
_TORCHVISION = "torchvision:"
_TORCHVISION_SIDE = 520
_MAX_SIDE = 10_000
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNKNOWN = -100.0
"""The logit of palette classes that the network does not have."""


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network with its preprocessing and its classes.

    Args:
        network: Maps standardized photographs (N, 3, side, side) to logits (N, classes of the network, side, side).
        palette: The classes to predict.
        side: Side in pixels to which photographs are resized for the network.
        prepare: Standardizes photographs in [−1, 1].
        name: A description for tables and reports.
        indices: The network's index of each class in the palette, −1 for classes it does not have; None if both agree.
    """

    network: nn.Module
    palette: Palette
    side: int
    prepare: Callable[[Tensor], Tensor]
    name: str
    indices: tuple[int, ...] | None = None

    def __call__(self, photographs: Tensor) -> Tensor:
        """Compute logits (N, classes of the palette, H, W) of photographs (N, 1 or 3, H, W) in [−1, 1]."""
        self.network.to(photographs.device)
        size = (self.side, self.side)
        small = functional.interpolate(photographs.float(), size, mode="bilinear", antialias=True)
        output = self.network(self.prepare(small.clamp(-1, 1)))
        logits = output["out"] if isinstance(output, Mapping) else output
        if self.indices is not None:
            unknown = torch.full_like(logits[:, :1], _UNKNOWN)
            logits = torch.cat(
                [unknown if index < 0 else logits[:, index : index + 1] for index in self.indices], dim=1
            )
        return functional.interpolate(logits, photographs.shape[-2:], mode="bilinear")

    def classify(self, photographs: Tensor) -> Tensor:
        """Predict the class (N, H, W) of each pixel."""
        with torch.inference_mode():
            return self(photographs).argmax(dim=1)


def make_segmenter(palette: Palette, *, architecture: str, backbone: str, weights: str, side: int) -> Segmenter:
    """Build a network of segmentation_models_pytorch on a timm backbone, ready to be trained.

    Args:
        architecture: An architecture of the package: fpn, unet, deeplabv3plus, ...
        backbone: A timm network with features at several scales.
        weights: The backbone's weights, as a `gantoolkit.blocks.features.WeightSource`.
        side: Side in pixels of its input; a multiple of 32.

    Raises:
        RecipeError: If the package is not installed, or the architecture or backbone does not exist.
        CheckpointError: If the weights could not be loaded.
    """
    network = _build(architecture, backbone, len(palette))
    load_backbone_weights(network.encoder.model, backbone, weights)  # type: ignore[union-attr, arg-type]
    return _wrap(network, palette, architecture, backbone, side)


def save_segmenter(path: Path, segmenter: Segmenter, about: Mapping[str, Any]) -> None:
    """Write a segmenter from `make_segmenter` to a self-contained file.

    Args:
        about: Further metadata; must contain `architecture` and `backbone`.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    header = {"format": _FORMAT, "palette": asdict(segmenter.palette), "side": segmenter.side, **about}
    write_tensors(path, segmenter.network.state_dict(), header)


def load_segmenter(
    source: str, palette: Palette | None = None, *, weights: str = "", side: int | None = None
) -> Segmenter:
    """Load a segmenter in evaluation mode.

    Args:
        source: A file that `gantoolkit train-segmenter` wrote, or torchvision:NAME for one of torchvision's networks.
        palette: The classes to predict. Required for torchvision networks; a file contains its own.
        weights: For torchvision networks: empty for pretrained weights, whose classes are matched by name; file:<path>
            for weights trained on the palette's classes; `none` for a fixed random initialization.
        side: Side in pixels to which photographs are resized for the network. Defaults to its training size.

    Raises:
        RecipeError: If the network does not exist.
        CheckpointError: If a file cannot be read or weights could not be loaded.
    """
    if source.startswith(_TORCHVISION):
        if palette is None:
            raise RecipeError(f"{source}: requires a palette")
        return _load_torchvision(source, palette, weights, side or _TORCHVISION_SIDE)
    path = user_path(source)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; use a file that gantoolkit train-segmenter wrote, or torchvision:NAME"
        )
    header = read_header(path)
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is not a segmenter file; its format is '{header.get('format')}'")
    check_header(path, header, {"palette": dict, "architecture": str, "backbone": str, "side": int})
    if not 1 <= header["side"] <= _MAX_SIDE:
        raise CheckpointError(f"{path}: is damaged: its side of {header['side']} pixels is out of range")
    own = _read_palette(path, header["palette"])
    if palette is not None and palette.classes != own.classes:
        raise CheckpointError(
            f"{path}: predicts the {len(own)} classes of {own.name}, not those of {palette.name}; use palette {own.name}, "
            "or none"
        )
    network = _build(header["architecture"], header["backbone"], len(own))
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not match its architecture ({error})") from error
    segmenter = _wrap(network, own, header["architecture"], header["backbone"], side or header["side"])
    segmenter.network.eval().requires_grad_(False)
    return segmenter


def _read_palette(path: Path, mapping: Mapping[str, Any]) -> Palette:
    check_header(path, mapping, {"name": str, "classes": list, "colors": list, "ignored": list})
    palette = Palette(mapping["name"], *(tuple(map(_tuple, mapping[key])) for key in ("classes", "colors", "ignored")))
    colors = palette.colors + palette.ignored
    levels = [level for color in colors if isinstance(color, tuple) for level in color]
    is_valid = (
        all(isinstance(name, str) for name in palette.classes)
        and len(palette.classes) == len(palette.colors) > 0
        and len(levels) == 3 * len(colors)
        and all(type(level) is int and 0 <= level <= 255 for level in levels)
    )
    if not is_valid:
        raise CheckpointError(
            f"{path}: is damaged: its palette must have a color of three integers from 0 to 255 for each class"
        )
    return palette


def _wrap(network: nn.Module, palette: Palette, architecture: str, backbone: str, side: int) -> Segmenter:
    return Segmenter(
        network,
        palette,
        side,
        lambda images: normalize(images, backbone),
        f"{architecture} on {backbone}, {side}×{side}",
    )


def _build(architecture: str, backbone: str, classes: int) -> nn.Module:
    with requires_extra("segmentation", "a segmenter", RecipeError):
        import segmentation_models_pytorch as models
    try:
        return _build_on_cpu(
            lambda: models.create_model(
                architecture, encoder_name=f"tu-{backbone}", encoder_weights=None, classes=classes
            )
        )
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RecipeError(
            f"segmenter: could not build '{architecture}' on '{backbone}' ({first_line(error)}); use an architecture of "
            "segmentation_models_pytorch (fpn, unet, ...) and a timm backbone with features at several scales"
        ) from error


def _load_torchvision(source: str, palette: Palette, weights: str, side: int) -> Segmenter:
    with requires_extra("segmentation", f"{source}: a network of torchvision", RecipeError):
        from torchvision.models import get_model, get_model_weights, list_models, segmentation
    name = source.removeprefix(_TORCHVISION)
    known = list_models(module=segmentation)
    if name not in known:
        hint = did_you_mean(name, known)
        raise RecipeError(f"torchvision: unknown segmentation network '{name}'.{hint} Known: {', '.join(known)}")
    indices = None
    if weights:
        network = _build_on_cpu(lambda: get_model(name, weights=None, weights_backbone=None, num_classes=len(palette)))
        if weights.startswith("file:"):
            path = user_path(weights.removeprefix("file:"))
            try:
                # Some checkpoints contain an auxiliary classifier, which is used in training only.
                state = {key: value for key, value in read_weights(path).items() if not key.startswith("aux_")}
                network.load_state_dict(state)
            except RuntimeError as error:
                raise CheckpointError(
                    f"{path}: does not hold weights of {name} with {len(palette)} classes ({error})"
                ) from error
        elif weights != "none":
            raise RecipeError(f"{source}: weights must be empty, none or file:<path>, not {weights!r}")
    else:
        pretrained = get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        try:
            network = _build_on_cpu(lambda: get_model(name, weights=pretrained))
        except OSError as error:
            raise CheckpointError(
                f"{source}: its weights could not be downloaded ({error}); on a machine with network access, download "
                f"{pretrained.url}, then copy the file into {torch.hub.get_dir()}/checkpoints here"
            ) from error
        categories = pretrained.meta["categories"]
        indices = tuple(categories.index(label) if label in categories else -1 for label in palette.classes)
        if max(indices) < 0:
            raise RecipeError(f"{source}: has none of the classes of {palette.name}, only {', '.join(categories)}")
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (_MEAN, _STD))

    def standardize(images: Tensor) -> Tensor:
        return ((images.expand(-1, 3, -1, -1) + 1) / 2 - mean.to(images)) / std.to(images)

    return Segmenter(
        network.eval().requires_grad_(False), palette, side, standardize, f"{name}, {side}×{side}", indices
    )


def _build_on_cpu(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the CPU, whatever the default device, without advancing the run's random state."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
