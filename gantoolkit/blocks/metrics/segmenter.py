"""Networks that read a photograph: a class for each pixel. What the FCN score looks through."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.features import fill_backbone, normalize
from gantoolkit.blocks.metrics.palette import Palette
from gantoolkit.errors import CheckpointError, RecipeError, did_you_mean, first_line, requires_extra
from gantoolkit.files.tensors import check_header, read_header, read_tensors, write_tensors
from gantoolkit.files.untrusted_weights import read_weights

__all__ = ["Segmenter", "load_segmenter", "make_segmenter", "save_segmenter"]

_FORMAT = "gantoolkit segmenter 1"
_TORCHVISION = "torchvision:"
_TORCHVISION_SIDE = 520
_MAX_SIDE = 10_000
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNKNOWN = -100.0
"""The logit of a class that the network does not know."""


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network and what it needs to be asked.

    Args:
        network: From standardized photographs (N, 3, side, side) to logits (N, its classes, side, side).
        palette: The classes that it is asked for.
        side: Side in pixels to which photographs are resized for it.
        prepare: Standardizes photographs in [−1, 1].
        name: What it is, for tables and reports.
        places: For each class of the palette the network's own index of it, −1 where it has none; none if they agree.
    """

    network: nn.Module
    palette: Palette
    side: int
    prepare: Callable[[Tensor], Tensor]
    name: str
    places: tuple[int, ...] | None = None

    def __call__(self, photographs: Tensor) -> Tensor:
        """Logits (N, classes of the palette, H, W) for photographs (N, 1 or 3, H, W) in [−1, 1]."""
        self.network.to(photographs.device)
        size = (self.side, self.side)
        small = functional.interpolate(photographs.float(), size, mode="bilinear", antialias=True)
        made = self.network(self.prepare(small.clamp(-1, 1)))
        logits = made["out"] if isinstance(made, Mapping) else made
        if self.places is not None:
            unknown = torch.full_like(logits[:, :1], _UNKNOWN)
            logits = torch.cat([unknown if place < 0 else logits[:, place : place + 1] for place in self.places], dim=1)
        return functional.interpolate(logits, photographs.shape[-2:], mode="bilinear")

    def classify(self, photographs: Tensor) -> Tensor:
        """The class (N, H, W) of each pixel."""
        with torch.inference_mode():
            return self(photographs).argmax(dim=1)


def make_segmenter(palette: Palette, *, architecture: str, backbone: str, weights: str, side: int) -> Segmenter:
    """A network of segmentation_models_pytorch on a backbone of timm, ready to be trained.

    Args:
        architecture: fpn, unet, deeplabv3plus, ...: any that the package makes.
        backbone: A network of timm that gives features at several scales.
        weights: Where the backbone's come from, as a `gantoolkit.blocks.features.WeightSource`.
        side: Side in pixels of what it sees; a multiple of 32.

    Raises:
        RecipeError: When the package is missing, or there is no such architecture or backbone.
        CheckpointError: When the weights cannot be had.
    """
    network = _build(architecture, backbone, len(palette))
    fill_backbone(network.encoder.model, backbone, weights)  # type: ignore[union-attr, arg-type]
    return _wrap(network, palette, architecture, backbone, side)


def save_segmenter(path: Path, segmenter: Segmenter, about: Mapping[str, Any]) -> None:
    """Write a segmenter that `make_segmenter` made, in a file that says all that is needed to read it.

    Args:
        about: How it was made, with `architecture` and `backbone`; and what is known of it.

    Raises:
        CheckpointError: When it cannot be written.
    """
    header = {"format": _FORMAT, "palette": asdict(segmenter.palette), "side": segmenter.side, **about}
    write_tensors(path, segmenter.network.state_dict(), header)


def load_segmenter(
    source: str, palette: Palette | None = None, *, weights: str = "", side: int | None = None
) -> Segmenter:
    """A segmenter in evaluation mode.

    Args:
        source: A file that `gantoolkit train-segmenter` wrote; or torchvision:NAME, one of its segmentation networks.
        palette: The classes to ask for; needed for torchvision's. A file knows its own.
        weights: For torchvision's networks: nothing for the pretrained ones, whose classes are found by name; file:<path>
            for weights that were trained on the palette's classes; `none` for a random draw, the same each time.
        side: Side in pixels to which photographs are resized for it; by default, that it was trained at.

    Raises:
        RecipeError: When there is no such network.
        CheckpointError: When a file cannot be read, or weights cannot be had.
    """
    if source.startswith(_TORCHVISION):
        if palette is None:
            raise RecipeError(f"{source}: needs a palette")
        return _load_torchvision(source, palette, weights, side or _TORCHVISION_SIDE)
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; a segmenter is a file that gantoolkit train-segmenter wrote, or torchvision:NAME"
        )
    header = read_header(path)
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is no segmenter's file but '{header.get('format')}'")
    check_header(path, header, {"palette": dict, "architecture": str, "backbone": str, "side": int})
    if not 1 <= header["side"] <= _MAX_SIDE:
        raise CheckpointError(f"{path}: is damaged: it was trained at {header['side']} pixels")
    own = _read_palette(path, header["palette"])
    if palette is not None and palette.classes != own.classes:
        raise CheckpointError(
            f"{path}: knows the {len(own)} classes of {own.name}, not those of {palette.name}; name that palette, or none"
        )
    network = _build(header["architecture"], header["backbone"], len(own))
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit what it says it is ({error})") from error
    segmenter = _wrap(network, own, header["architecture"], header["backbone"], side or header["side"])
    segmenter.network.eval().requires_grad_(False)
    return segmenter


def _read_palette(path: Path, held: Mapping[str, Any]) -> Palette:
    check_header(path, held, {"name": str, "classes": list, "colors": list, "ignored": list})
    own = Palette(held["name"], *(tuple(map(_tuple, held[key])) for key in ("classes", "colors", "ignored")))
    colors = own.colors + own.ignored
    levels = [level for color in colors if isinstance(color, tuple) for level in color]
    right = (
        all(isinstance(name, str) for name in own.classes)
        and len(own.classes) == len(own.colors) > 0
        and len(levels) == 3 * len(colors)
        and all(type(level) is int and 0 <= level <= 255 for level in levels)
    )
    if not right:
        raise CheckpointError(
            f"{path}: is damaged: its palette needs a color of three numbers from 0 to 255 for each class"
        )
    return own


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
        # On the CPU, whatever the default device, and without touching the random numbers of the run.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return models.create_model(
                architecture, encoder_name=f"tu-{backbone}", encoder_weights=None, classes=classes
            )
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RecipeError(
            f"segmenter: no '{architecture}' on '{backbone}' can be made ({first_line(error)}); architectures "
            "are those of segmentation_models_pytorch (fpn, unet, ...), backbones those of timm with features at several scales"
        ) from error


def _load_torchvision(source: str, palette: Palette, weights: str, side: int) -> Segmenter:
    with requires_extra("segmentation", f"{source}: a network of torchvision", RecipeError):
        from torchvision.models import get_model, get_model_weights, list_models, segmentation
    name = source.removeprefix(_TORCHVISION)
    known = list_models(module=segmentation)
    if name not in known:
        hint = did_you_mean(name, known)
        raise RecipeError(f"torchvision: no segmentation network '{name}'.{hint} Known: {', '.join(known)}")
    places = None
    if weights:
        network = _make_quietly(lambda: get_model(name, weights=None, weights_backbone=None, num_classes=len(palette)))
        if weights.startswith("file:"):
            path = Path(weights.removeprefix("file:"))
            try:
                # The second classifier that some are trained with says nothing when it is asked.
                state = {key: value for key, value in read_weights(path).items() if not key.startswith("aux_")}
                network.load_state_dict(state)
            except RuntimeError as error:
                raise CheckpointError(
                    f"{path}: holds no weights of {name} with {len(palette)} classes ({error})"
                ) from error
        elif weights != "none":
            raise RecipeError(f"{source}: weights cannot be {weights!r}; leave them out, or say none or file:<path>")
    else:
        pretrained = get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        try:
            network = _make_quietly(lambda: get_model(name, weights=pretrained))
        except OSError as error:
            raise CheckpointError(
                f"{source}: its weights cannot be downloaded ({error}); on a machine with a network, fetch "
                f"{pretrained.url} into {torch.hub.get_dir()}/checkpoints, and copy that file here into the same folder"
            ) from error
        theirs = pretrained.meta["categories"]
        places = tuple(theirs.index(each) if each in theirs else -1 for each in palette.classes)
        if max(places) < 0:
            raise RecipeError(f"{source}: knows none of the classes of {palette.name}, but {', '.join(theirs)}")
    mean, std = (torch.tensor(figures).view(1, -1, 1, 1) for figures in (_MEAN, _STD))

    def standardize(images: Tensor) -> Tensor:
        return ((images.expand(-1, 3, -1, -1) + 1) / 2 - mean.to(images)) / std.to(images)

    return Segmenter(network.eval().requires_grad_(False), palette, side, standardize, f"{name}, {side}×{side}", places)


def _make_quietly(make: Callable[[], nn.Module]) -> nn.Module:
    """On the CPU, whatever the default device, and without touching the random numbers of the run."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
