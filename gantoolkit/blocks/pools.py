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

    What happens to a batch is decided on the host, and done in a few operations on the images' device that are the same
    whatever was decided: so the host never waits for the device, and a step can be replayed as a graph.

    Args:
        generator: Host-side source of the decisions; the images stay on their device.
        size: Images kept. 0 hands every batch back unchanged.
    """

    def __init__(self, generator: torch.Generator, *, size: Annotated[int, Field(ge=0)] = 50) -> None:
        self.size = size
        self.generator = generator
        self.count = 0
        self._stored: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """What is stored: (count, C, H, W)."""
        return torch.empty(0) if self._stored is None else self._stored[: self.count]

    def __call__(self, fakes: Tensor) -> Tensor:
        """Swap about half of `fakes` (N, C, H, W) for stored images; same shape, no gradient."""
        if self._stored is not None and self._stored.shape[1:] != fakes.shape[1:]:
            self._stored, self.count = None, 0  # images of another size are another memory
        return self.exchange(fakes, self.decide(len(fakes)).to(fakes.device))

    def decide(self, count: int) -> Tensor:
        """Draw what happens to the next `count` fakes.

        Returns:
            (4, count), a column for each fake: whether a stored image takes its place, and which; else which of the fakes is
            handed back; and the place where the fake is stored, `size` if nowhere.
        """
        columns: list[tuple[int, int, int]] = []
        written: dict[int, int] = {}  # places, and which fake is stored there last
        for number in range(count if self.size else 0):
            if self.count < self.size:
                written[self.count] = number
                self.count += 1
                columns.append((0, 0, number))
            # On the host also where the default device is another.
            elif torch.rand((), generator=self.generator, device="cpu") < 0.5:
                columns.append((0, 0, number))
            else:
                place = int(torch.randint(self.size, (), generator=self.generator, device="cpu"))
                columns.append((0, 0, written[place]) if place in written else (1, place, 0))
                written[place] = number
        stored = {number: place for place, number in written.items()}
        drawn = [(*column, stored.get(number, self.size)) for number, column in enumerate(columns)]
        return torch.tensor(drawn, dtype=torch.int64, device="cpu").reshape(-1, 4).T

    def exchange(self, fakes: Tensor, decisions: Tensor) -> Tensor:
        """Do what was decided; `decisions` are on the device of `fakes`."""
        fakes = fakes.detach()
        if self.size == 0:
            return fakes
        if self._stored is None:
            self._stored = self._allocate(fakes)
        is_old, old, new, into = decisions
        earlier, now = self._stored.index_select(0, old), fakes.index_select(0, new)
        handed = torch.where(is_old.bool()[:, None, None, None], earlier, now)
        # An image that is not finite would come back in a later step; while the pool fills up, a gray one has its place.
        into = torch.where(fakes.isfinite().flatten(1).all(1), into, self.size)
        self._stored.index_copy_(0, into, fakes)
        return handed

    def state_dict(self) -> dict[str, Tensor]:
        """The stored images and the position of the random generator."""
        stored = {} if self._stored is None else {"images": self.images}
        return {"generator": self.generator.get_state(), **stored}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self._stored, self.count = None, 0
        if "images" in state:
            images = state["images"]
            self._stored = self._allocate(images)
            self.count = len(images)
            self._stored[: self.count] = images

    def _allocate(self, like: Tensor) -> Tensor:
        """Room for all images, and one more for those that are not kept."""
        return like.new_zeros(self.size + 1, *like.shape[1:])


class NoPool:
    """Hands every batch back: the discriminator sees the newest fakes only."""

    expected_failures: ClassVar = {"returns_old_images": "it is what the ablation without a pool puts in its place"}

    def __init__(self, generator: torch.Generator) -> None:
        pass

    def __call__(self, fakes: Tensor) -> Tensor:
        return fakes.detach()

    def decide(self, count: int) -> Tensor:
        """Nothing."""
        return torch.empty(0)

    def exchange(self, fakes: Tensor, decisions: Tensor) -> Tensor:
        """Nothing is exchanged."""
        return fakes.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass
