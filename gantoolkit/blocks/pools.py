"""Image pools, which show fakes of earlier steps to the discriminator (Shrivastava et al. 2017, §2.3)."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor


class HistoryPool:
    """Buffer of past fakes that replaces about half of every batch with images of earlier steps.

    Until the buffer is full, each image is stored and returned. Then, with probability ½, an image is swapped for a stored one;
    otherwise it is returned and not stored (Zhu et al. 2017, §4).

    The decisions are drawn on the host and executed by operations on the device that do not depend on them. So the host never
    waits for the device, and a CUDA graph can replay the step.

    Args:
        generator: CPU generator for the decisions; the images stay on their device.
        size: Maximum number of stored images. 0 returns every batch unchanged.
    """

    def __init__(self, generator: torch.Generator, *, size: Annotated[int, Field(ge=0)] = 50) -> None:
        self.size = size
        self.generator = generator
        self.count = 0
        self._stored: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """The stored images: (count, C, H, W)."""
        return torch.empty(0) if self._stored is None else self._stored[: self.count]

    def __call__(self, fakes: Tensor) -> Tensor:
        """Swap about half of `fakes` (N, C, H, W) for stored images; same shape, no gradient."""
        if self._stored is not None and self._stored.shape[1:] != fakes.shape[1:]:
            self._stored, self.count = None, 0  # images of another size start an empty buffer
        decisions = self.decide(len(fakes))
        if fakes.is_cuda:
            decisions = decisions.pin_memory()  # otherwise the host waits for the device
        return self.exchange(fakes, decisions.to(fakes.device, non_blocking=True))

    def decide(self, count: int) -> Tensor:
        """Draw the decisions for the next `count` fakes.

        Returns:
            (4, count), one column per fake: whether a stored image replaces it; the slot of that image; otherwise the index of
            the fake to return; and the slot to store the fake in, `size` for none.
        """
        columns: list[tuple[int, int, int]] = []
        newest: dict[int, int] = {}  # slot: index of the fake stored there last
        for index in range(count if self.size else 0):
            if self.count < self.size:
                newest[self.count] = index
                self.count += 1
                columns.append((0, 0, index))
            # Explicitly on the CPU, whatever the default device.
            elif torch.rand((), generator=self.generator, device="cpu") < 0.5:
                columns.append((0, 0, index))
            else:
                slot = int(torch.randint(self.size, (), generator=self.generator, device="cpu"))
                columns.append((0, 0, newest[slot]) if slot in newest else (1, slot, 0))
                newest[slot] = index
        slots = {index: slot for slot, index in newest.items()}
        decisions = [(*column, slots.get(index, self.size)) for index, column in enumerate(columns)]
        return torch.tensor(decisions, dtype=torch.int64, device="cpu").reshape(-1, 4).T

    def exchange(self, fakes: Tensor, decisions: Tensor) -> Tensor:
        """Apply the `decisions`, which are on the device of `fakes`."""
        fakes = fakes.detach()
        if self.size == 0:
            return fakes
        if self._stored is None:
            self._stored = self._allocate(fakes)
        is_stored, source_slot, index, target_slot = decisions
        stored, current = self._stored.index_select(0, source_slot), fakes.index_select(0, index)
        result = torch.where(is_stored.bool()[:, None, None, None], stored, current)
        # Never store a non-finite image, since a later step would return it. While the pool fills, its slot stays gray.
        target_slot = torch.where(fakes.isfinite().flatten(1).all(1), target_slot, self.size)
        self._stored.index_copy_(0, target_slot, fakes)
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """The stored images and the state of the random generator."""
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
        """Allocate all slots, and one more for images that are not stored."""
        return like.new_zeros(self.size + 1, *like.shape[1:])


class NoPool:
    """Return every batch unchanged: the discriminator sees current fakes only."""

    expected_failures: ClassVar = {"returns_old_images": "the ablation without a pool uses it"}

    def __init__(self, generator: torch.Generator) -> None:
        pass

    def __call__(self, fakes: Tensor) -> Tensor:
        return fakes.detach()

    def decide(self, count: int) -> Tensor:
        """Return an empty tensor: there is nothing to decide."""
        return torch.empty(0)

    def exchange(self, fakes: Tensor, decisions: Tensor) -> Tensor:
        """Return `fakes` unchanged."""
        return fakes.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass
