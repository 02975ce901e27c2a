"""Where the features of tiles are kept between passes."""

from dataclasses import replace

import torch

from gantoolkit.inference.feature_cache import ChainState, FeatureCache, Stopwatch

CPU = torch.device("cpu")


def state_of(elements: int, step: int = 0) -> ChainState:
    features = torch.zeros(elements)
    return ChainState(step, step, features, (features,))


def store(cache: FeatureCache, tile: str, state: ChainState) -> None:
    cache.store(tile, state, Stopwatch(CPU))


def test_tensors_that_are_listed_twice_count_once() -> None:
    assert state_of(10).bytes == 40
    assert replace(state_of(10), identities=(torch.zeros(10),)).bytes == 80


def test_states_stay_on_the_device_without_a_copy() -> None:
    cache, state = FeatureCache(100), state_of(10)
    store(cache, "first", state)
    loaded = cache.load("first", CPU)
    assert loaded is not None
    assert loaded.features is state.features


def test_a_state_replaces_the_last_one_of_its_tile_and_frees_its_memory() -> None:
    cache = FeatureCache(100)
    for step in range(5):
        store(cache, "first", state_of(20, step))
    store(cache, "first", state_of(5, 5))
    store(cache, "second", state_of(20, 5))
    assert [cache.find(tile).step for tile in ("first", "second")] == [5, 5]  # type: ignore[union-attr]


def test_without_room_a_tile_keeps_its_earlier_state_or_none() -> None:
    cache = FeatureCache(100, host_bytes=1000)  # the host is used by networks on CUDA only
    store(cache, "first", state_of(20, step=1))
    store(cache, "first", state_of(30, step=2))
    store(cache, "second", state_of(10))
    earlier = cache.find("first")
    assert earlier is not None
    assert earlier.step == 1
    assert cache.find("second") is None
    assert cache.load("second", CPU) is None
