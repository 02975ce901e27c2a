"""hypothesis strategies for the inputs of blocks: images, logits, seeds."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["image_batches", "image_pairs", "logits", "seeds"]


def seeds() -> st.SearchStrategy[int]:
    """Seeds of random generators."""
    return st.integers(0, 255)  # few, so that the smallest example is found quickly


@st.composite
def image_batches(
    draw: st.DrawFn,
    *,
    channels: int = 3,
    sizes: Sequence[int] = (32, 48),
    max_count: int = 3,
    min_count: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Batches (N, channels, H, W) of uniform noise in [−1, 1]; the smallest is one image of the first size.

    Args:
        channels: The number of channels.
        sizes: The sizes from which height and width are drawn, independently.
        max_count: The largest N.
        min_count: The smallest N.
        dtype: The dtype of the images.
    """
    count = draw(st.integers(min_count, max_count))
    height, width = draw(st.sampled_from(sizes)), draw(st.sampled_from(sizes))
    return _noise((count, channels, height, width), draw(seeds()), dtype)


@st.composite
def image_pairs(
    draw: st.DrawFn,
    *,
    channels: int = 3,
    sizes: Sequence[int] = (32, 48),
    max_count: int = 3,
    min_count: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Two batches of equal shape, as `image_batches` draws them."""
    batches = image_batches(channels=channels, sizes=sizes, max_count=max_count, min_count=min_count, dtype=dtype)
    first = draw(batches)
    return first, _noise(tuple(first.shape), 2**20 + draw(seeds()), dtype)  # never the seed of the first


@st.composite
def logits(
    draw: st.DrawFn,
    *,
    largest: float = 8.0,
    max_count: int = 4,
    max_side: int = 4,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Logits (N, 1, H', W'), uniform between −`largest` and `largest`."""
    shape = (draw(st.integers(1, max_count)), 1, draw(st.integers(1, max_side)), draw(st.integers(1, max_side)))
    return largest * _noise(shape, draw(seeds()), dtype)


def _noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype, device="cpu") * 2 - 1
