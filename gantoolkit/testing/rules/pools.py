"""Rules of image pools."""

import gc
import weakref
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, check_deterministic, check_device, check_inputs_unchanged
from gantoolkit.testing.strategies import image_batches, seeds

__all__ = ["image_pools"]

_STEPS = 400

image_pools = Rulebook("image_pools", examples=15)
add_schema_rule(image_pools)


def make_pool(subject: Subject, seed: int) -> Any:
    return subject.make(torch.Generator("cpu").manual_seed(seed))


def numbered(first: int, count: int, device: torch.device) -> Tensor:
    """Images that can be identified: image i is filled with i."""
    return torch.arange(first, first + count, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


@image_pools.rule
def returns_only_given_images(subject: Subject, draw: Draw) -> None:
    """For a batch (N, C, H, W) it returns a batch of the same shape, of images from this batch and from earlier ones."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    total = 0
    for count in draw(st.lists(st.integers(1, 20), min_size=1, max_size=12), "images in each batch"):
        fakes = numbered(total, count, subject.device)
        total += count
        returned = pool(fakes)
        expect(returned.shape == fakes.shape, f"shape {tuple(returned.shape)} for {tuple(fakes.shape)}")
        unknown = [value for value in returned.flatten().tolist() if value not in range(total)]
        expect(not unknown, f"it returned images {unknown}, but was given only images 0 to {total - 1}")


@image_pools.rule
def returns_old_images(subject: Subject, draw: Draw) -> None:
    """It returns images of earlier batches within a few hundred steps."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    for number in range(_STEPS):
        if pool(numbered(number, 1, subject.device)).item() != number:
            return
    expect(False, f"each of {_STEPS} images was returned immediately")


@image_pools.rule
def returns_new_images(subject: Subject, draw: Draw) -> None:
    """A pool that is full still returns new images, so that the discriminator sees the current generator."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    is_new = [pool(numbered(number, 1, subject.device)).item() == number for number in range(_STEPS)]
    expect(any(is_new[_STEPS // 2 :]), f"none of the last {_STEPS // 2} of {_STEPS} images was returned immediately")


@image_pools.rule
def detaches_images(subject: Subject, draw: Draw) -> None:
    """Returned images require no gradient, and stored images keep no graph alive, which would hold the memory of every step."""
    pool = make_pool(subject, 0)
    graphs: list[weakref.ref[_Mark]] = []
    for fakes in draw(st.lists(image_batches(sizes=(2,)), min_size=1, max_size=3), "batches"):
        returned = pool(_Marked.apply(fakes.to(subject.device).requires_grad_(), graphs))
        expect(not returned.requires_grad, "the returned images require a gradient")
        del returned
    alive = _count_alive(graphs)
    if alive:
        gc.collect()  # takes tens of milliseconds; most graphs are freed without it
        alive = _count_alive(graphs)
    expect(not alive, f"the graphs of {alive} of {len(graphs)} batches are still alive")


def _count_alive(graphs: "list[weakref.ref[_Mark]]") -> int:
    return sum(graph() is not None for graph in graphs)


class _Mark:
    """Lives as long as the graph that refers to it."""


class _Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, graphs: list["weakref.ref[_Mark]"]) -> Tensor:
        ctx.mark = _Mark()
        graphs.append(weakref.ref(ctx.mark))
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradients[0], None


@image_pools.rule
def stores_copies(subject: Subject, draw: Draw) -> None:
    """Stored images are copies: later changes to the batch do not affect them. The batch is not changed in place."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    for number in range(_STEPS):
        fakes = numbered(number, 1, subject.device)
        check_inputs_unchanged(pool, [fakes])
        fakes.fill_(-1)
    later = [pool(numbered(number, 1, subject.device)).item() for number in range(_STEPS, 2 * _STEPS)]
    expect(-1 not in later, "a stored image changed when its batch was overwritten")


@image_pools.rule
def restores_state(subject: Subject, draw: Draw) -> None:
    """The `state_dict` holds tensors only, and all that later calls depend on: another pool that loads it continues alike."""
    pool, other = make_pool(subject, draw(seeds(), "seed")), make_pool(subject, 77)
    before = draw(st.integers(0, 120), "images before")
    for number in range(before):
        pool(numbered(number, 1, subject.device))
    state = pool.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    expect(not wrong, f"{', '.join(wrong)} in its state is not a tensor")
    other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    for number in range(1000, 1060):
        fakes = numbered(number, 1, subject.device)
        expected_image, image = pool(fakes).item(), other(fakes.clone()).item()
        expect(
            expected_image == image,
            f"for image {number} it returned image {expected_image:g}, but the restored pool image {image:g}",
        )


@image_pools.rule
def uses_only_its_generator(subject: Subject, draw: Draw) -> None:
    """All randomness comes from the generator that is passed in. Global random generators are neither used nor advanced."""
    seed = draw(seeds(), "seed")

    def use() -> list[Tensor]:
        pool = make_pool(subject, seed)
        return [pool(numbered(4 * step, 4, subject.device)) for step in range(40)]

    check_deterministic(use)


@image_pools.rule
def is_device_agnostic(subject: Subject, draw: Draw) -> None:
    """The returned images are on the device of the batch."""
    batches = draw(st.lists(image_batches(sizes=(2,)), min_size=1, max_size=4), "batches")

    def use(*batches: Tensor) -> list[Tensor]:
        pool = make_pool(subject, 0)
        return [pool(fakes) for fakes in batches]

    check_device(use, [fakes.to(subject.device) for fakes in batches])
