"""A trained generator as a function from image to image, of any size."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.assembly import size_multiple_of
from gantoolkit.data import from_tensor, read_image, to_tensor
from gantoolkit.data.images import to_mode
from gantoolkit.device import select_device
from gantoolkit.errors import DataError
from gantoolkit.layout import memory_format_of
from gantoolkit.precision import Precision, arithmetic
from gantoolkit.training import LoadedGenerator, load_generator, run_generator

__all__ = ["Translator"]


class Translator:
    """Translates images; each keeps its size.

    Where the network cannot take a size, the image is continued by its mirror image, translated, and cropped back.

    Args:
        generator: A loaded generator; `Translator.load` reads one from a file.
        compile: Compile the network with torch.compile when the first image comes, for images of any size; that takes a
            minute or two, and pays for many images.
    """

    def __init__(self, generator: LoadedGenerator, *, compile: bool = False) -> None:
        self.generator = generator
        if compile:
            generator.network.compile(dynamic=True)
        tensors = itertools.chain(generator.network.parameters(), generator.network.buffers())
        self.device = next(tensors, torch.empty(0)).device

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        precision: Precision | Literal["auto"] = "fp32",
        compile: bool = False,
    ) -> "Translator":
        """Read a generator's file, such as `runs/city/generators/A2B.safetensors`.

        Args:
            device: As `gantoolkit.device.select_device`.
            precision: What the network computes in; `auto` takes what is soonest done on the device.
            compile: As above.

        Raises:
            CheckpointError: When it cannot be read.
        """
        return cls(load_generator(Path(path), select_device(device), precision), compile=compile)

    @property
    def direction(self) -> str:
        """`A2B` or `B2A`."""
        return self.generator.direction

    def __call__(self, image: Image.Image | str | Path) -> Image.Image:
        """Translate one image, or the image in a file.

        Raises:
            DataError: When the file cannot be read, or its size not translated.
        """
        return self.translate([self.read(image)])[0]

    def read(self, image: Image.Image | str | Path) -> Image.Image:
        """The image with as many channels as the generator takes."""
        channels = self.generator.in_channels
        return to_mode(image, channels) if isinstance(image, Image.Image) else read_image(image, channels)

    def translate(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Translate images as `read` returns them; those of one size together, as one batch."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(image.size, []).append(place)
        translated: dict[int, Image.Image] = {}
        for places in by_size.values():
            batch = torch.stack([to_tensor(images[place]) for place in places])
            made = self.translate_tensor(batch)
            translated |= {place: from_tensor(image) for place, image in zip(places, made, strict=True)}
        return [translated[place] for place in range(len(images))]

    def translate_tensor(self, images: Tensor) -> Tensor:
        """Translate (N, in_channels, H, W) in [−1, 1] to (N, out_channels, H, W), on the generator's device.

        A generator that draws random numbers when it translates (pix2pix) gets the same ones for every image.

        Raises:
            DataError: When the network cannot take the size, or there is not enough memory for it.
        """
        network = self.generator.network
        height, width = images.shape[-2:]
        precision = self.generator.precision
        padded = _mirror_pad(images.to(self.device), network)
        padded = padded.contiguous(memory_format=memory_format_of(precision, self.device))
        try:
            with torch.inference_mode(), arithmetic(precision, try_algorithms=False):
                return run_generator(network, padded)[..., :height, :width]
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"an image of {width}×{height} pixels cannot be translated: {reason}") from error


def _mirror_pad(images: Tensor, network: nn.Module) -> Tensor:
    """Continue images to the right and below until the network can take their sides."""
    multiple = size_multiple_of(network)
    smallest = getattr(network, "smallest_side", multiple)
    wanted = [max(side + -side % multiple, smallest) for side in images.shape[-2:]]
    while list(images.shape[-2:]) != wanted:
        # A mirror shows at most all of the image but its last line, so a small image needs several.
        gaps = [min(goal - side, side - 1) for goal, side in zip(wanted, images.shape[-2:], strict=True)]
        if gaps == [0, 0]:  # a side of one pixel has nothing else to show
            below, right = (goal - side for goal, side in zip(wanted, images.shape[-2:], strict=True))
            return functional.pad(images, (0, right, 0, below), mode="replicate")
        images = functional.pad(images, (0, gaps[1], 0, gaps[0]), mode="reflect")
    return images
