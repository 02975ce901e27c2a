import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gantoolkit.blocks.pools import HistoryPool, NoPool


def pool_of(size: int, seed: int = 0) -> HistoryPool:
    return HistoryPool(torch.Generator().manual_seed(seed), size=size)


def numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count).float().reshape(count, 1, 1, 1)


@given(size=st.integers(0, 5), batches=st.lists(st.integers(1, 4), max_size=8), seed=st.integers(0, 2**16))
def test_pool_returns_only_images_it_was_given(size: int, batches: list[int], seed: int) -> None:
    pool = pool_of(size, seed)
    total = 0
    for count in batches:
        returned = pool(numbered(total, count))
        total += count
        assert returned.shape == (count, 1, 1, 1)
        assert set(returned.flatten().tolist()) <= set(range(total))
        assert len(pool.images) <= size


@given(batches=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_pool_of_size_zero_returns_its_input(batches: list[int]) -> None:
    for pool in (pool_of(0), NoPool(torch.Generator())):
        for count in batches:
            fakes = torch.rand(count, 3, 2, 2)
            assert torch.equal(pool(fakes), fakes)


@given(size=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_images_are_stored_and_returned_until_pool_is_full(size: int, seed: int) -> None:
    pool = pool_of(size, seed)
    fakes = numbered(0, size)
    assert torch.equal(pool(fakes), fakes)
    assert [image.item() for image in pool.images] == list(range(size))


@given(seed=st.integers(0, 2**16))
def test_full_pool_either_swaps_an_image_or_returns_it_without_storing_it(seed: int) -> None:
    pool = pool_of(3, seed)
    pool(numbered(0, 3))
    for number in range(3, 20):
        before = [image.item() for image in pool.images]
        returned = pool(numbered(number, 1)).item()
        after = [image.item() for image in pool.images]
        if returned == number:
            assert after == before
        else:
            slot = before.index(returned)
            assert after == [*before[:slot], float(number), *before[slot + 1 :]]


def test_about_half_of_the_images_are_swapped() -> None:
    pool = pool_of(50)
    returned = pool(numbered(0, 2050)).flatten()
    swapped = (returned != torch.arange(2050)).float()[50:].mean().item()
    assert swapped == pytest.approx(0.5, abs=0.05)


def test_images_have_no_gradient_and_are_copies() -> None:
    pool = pool_of(2)
    fakes = torch.zeros(1, 1, 1, 1, requires_grad=True)
    assert not pool(fakes).requires_grad
    with torch.no_grad():
        fakes.fill_(7)
    assert pool.images[0].item() == 0


@given(size=st.integers(1, 4), before=st.integers(0, 9), seed=st.integers(0, 2**16))
def test_restored_pool_makes_the_same_decisions(size: int, before: int, seed: int) -> None:
    pool, restored = pool_of(size, seed), pool_of(size, seed + 1)
    if before:
        pool(numbered(0, before))
    restored.load_state_dict({name: tensor.clone() for name, tensor in pool.state_dict().items()})
    for number in range(100, 110):
        assert torch.equal(pool(numbered(number, 1)), restored(numbered(number, 1)))
