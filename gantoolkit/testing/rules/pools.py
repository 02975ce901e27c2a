"""Rules of image pools."""

import gc
import weakref
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, check_device, check_inputs_kept, check_repeats
from gantoolkit.testing.strategies import image_batches, seeds

__all__ = ["image_pools"]

_LONG = 400

image_pools = Rulebook("image_pools", examples=15)
add_schema_rule(image_pools)


def make_pool(subject: Subject, seed: int) -> Any:
    return subject.make(torch.Generator("cpu").manual_seed(seed))


def numbered(first: int, count: int, device: torch.device) -> Tensor:
    """Images that can be told apart: image i is filled with i."""
    return torch.arange(first, first + count, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


@image_pools.rule
def returns_only_given_images(subject: Subject, draw: Draw) -> None:
    """A batch (N, C, H, W) comes back in the same shape, made of images of this batch and of earlier ones."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    given = 0
    for count in draw(st.lists(st.integers(1, 20), min_size=1, max_size=12), "images in each batch"):
        fakes = numbered(given, count, subject.device)
        given += count
        returned = pool(fakes)
        expect(returned.shape == fakes.shape, f"shape {tuple(returned.shape)} for {tuple(fakes.shape)}")
        strange = [value for value in returned.flatten().tolist() if value not in range(given)]
        expect(not strange, f"{strange} among images that were never given (there were {given}, numbered from 0)")


@image_pools.rule
def returns_old_images(subject: Subject, draw: Draw) -> None:
    """Sooner or later images of earlier batches come back; else it is no memory."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    for number in range(_LONG):
        if pool(numbered(number, 1, subject.device)).item() != number:
            return
    expect(False, f"each of {_LONG} images came straight back")


@image_pools.rule
def returns_new_images(subject: Subject, draw: Draw) -> None:
    """New images get through too, however long it has been used: the discriminator follows its generator."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    passed = [pool(numbered(number, 1, subject.device)).item() == number for number in range(_LONG)]
    expect(any(passed[_LONG // 2 :]), f"none of the last {_LONG // 2} images of {_LONG} came back at once")


@image_pools.rule
def carries_no_gradient(subject: Subject, draw: Draw) -> None:
    """What comes back has no gradient, and what is stored keeps no graph alive (which would hold every step's memory)."""
    pool = make_pool(subject, 0)
    graphs: list[weakref.ref[_Mark]] = []
    for fakes in draw(st.lists(image_batches(sizes=(2,)), min_size=1, max_size=3), "batches"):
        returned = pool(_Marked.apply(fakes.to(subject.device).requires_grad_(), graphs))
        expect(not returned.requires_grad, "what came back requires a gradient")
        del returned
    gc.collect()
    alive = sum(graph() is not None for graph in graphs)
    expect(not alive, f"the graphs of {alive} of {len(graphs)} batches are still alive")


class _Mark:
    """Lives as long as the graph that it hangs on."""


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
    """Stored images are copies: what happens to the batch afterwards does not reach them, and the batch is left as it was."""
    pool = make_pool(subject, draw(seeds(), "seed"))
    for number in range(_LONG):
        fakes = numbered(number, 1, subject.device)
        check_inputs_kept(pool, [fakes])
        fakes.fill_(-1)
    later = [pool(numbered(number, 1, subject.device)).item() for number in range(_LONG, 2 * _LONG)]
    expect(-1 not in later, "a stored image changed when the batch that it came from was overwritten")


@image_pools.rule
def restores_state(subject: Subject, draw: Draw) -> None:
    """Its `state_dict`, of tensors alone, holds all that it will do next: a pool that loads it goes on alike."""
    pool, other = make_pool(subject, draw(seeds(), "seed")), make_pool(subject, 77)
    before = draw(st.integers(0, 120), "images before")
    for number in range(before):
        pool(numbered(number, 1, subject.device))
    state = pool.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    expect(not wrong, f"in its state, {', '.join(wrong)} is no tensor")
    other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    for number in range(1000, 1060):
        fakes = numbered(number, 1, subject.device)
        here, there = pool(fakes).item(), other(fakes.clone()).item()
        expect(here == there, f"image {number} brought back image {here:g}, and {there:g} from the restored pool")


@image_pools.rule
def uses_only_its_generator(subject: Subject, draw: Draw) -> None:
    """Every decision comes from the generator that it was given; the global random generators are neither used nor touched."""
    seed = draw(seeds(), "seed")

    def use() -> list[Tensor]:
        pool = make_pool(subject, seed)
        return [pool(numbered(4 * step, 4, subject.device)) for step in range(40)]

    check_repeats(use)


@image_pools.rule
def follows_device(subject: Subject, draw: Draw) -> None:
    """Images stay on the device on which they came."""
    batches = draw(st.lists(image_batches(sizes=(2,)), min_size=1, max_size=4), "batches")

    def use(*batches: Tensor) -> list[Tensor]:
        pool = make_pool(subject, 0)
        return [pool(fakes) for fakes in batches]

    check_device(use, [fakes.to(subject.device) for fakes in batches])
