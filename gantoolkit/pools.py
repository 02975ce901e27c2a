"""Image pools: the discriminator sees fakes of earlier steps as well as new ones (Shrivastava et al. 2017, §2.3)."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor


class HistoryPool:
    """A buffer of past fakes: about half of every batch is exchanged for images of earlier steps.

    Until the buffer is full, each image is stored and handed back. Then, for each image, with probability ½ a stored one
    takes its place and it is stored instead; else it is handed back and not stored (Zhu et al. 2017, §4).

    Args:
        generator: Host-side source of the decisions; the images stay on their device.
        size: Images kept. 0 hands every batch back unchanged.
    """

    def __init__(self, generator: torch.Generator, *, size: Annotated[int, Field(ge=0)] = 50) -> None:
        self.size = size
        self.generator = generator
        self.images: list[Tensor] = []

    def __call__(self, fakes: Tensor) -> Tensor:
        """Swap about half of `fakes` (N, C, H, W) for stored images; same shape, no gradient."""
        fakes = fakes.detach()
        if self.size == 0:
            return fakes
        return torch.stack([self._exchange(image) for image in fakes])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        # On the host also where the default device is another.
        if torch.rand((), generator=self.generator, device="cpu") < 0.5:
            return image
        place = int(torch.randint(self.size, (), generator=self.generator, device="cpu"))
        earlier, self.images[place] = self.images[place], image.clone()
        return earlier

    def state_dict(self) -> dict[str, Tensor]:
        """The stored images and the position of the random generator."""
        images = {f"image/{place}": image for place, image in enumerate(self.images)}
        return {"generator": self.generator.get_state(), **images}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.images = [state[f"image/{place}"] for place in range(len(state) - 1)]


class NoPool:
    """Hands every batch back: the discriminator sees the newest fakes only."""

    expected_failures: ClassVar = {"hands_out_old_images": "it is what the ablation without a pool puts in its place"}

    def __init__(self, generator: torch.Generator) -> None:
        pass

    def __call__(self, fakes: Tensor) -> Tensor:
        return fakes.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass
