"""Translating in tiles gives the result of the whole image: instance norm uses the whole image's statistics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers.small import make_image, make_tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import gantoolkit
from gantoolkit.cost.counters import LiveBytes
from gantoolkit.cost.step_cost import count_translation_bytes
from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.inference.feature_cache import FeatureCache
from gantoolkit.inference.tiling import measure_reach, padded_tile_length, translate_in_tiles
from gantoolkit.layers.fused import Chain
from gantoolkit.recipes import cyclegan
from gantoolkit.recipes.building import build_system, initialize
from gantoolkit.runs import LoadedGenerator

RESNET = {"name": "resnet", "width": 4, "blocks": 2}
GENERATORS: dict[str, dict[str, Any]] = {
    "resnet": RESNET,
    "affine": {**RESNET, "norm": "instance_affine"},
    "batch norm": {**RESNET, "norm": "batch"},
    "no norm": {**RESNET, "norm": "none", "padding": "zero"},
    "resize": {**RESNET, "upsampling": "resize", "padding": "replicate"},
    "unet": {"name": "unet", "depth": 3, "width": 4, "norm": "instance"},
    "unet with batch norm": {"name": "unet", "depth": 3, "width": 4, "norm": "batch"},
}


def open_translator(generator: dict[str, Any], **options: Any) -> Translator:
    recipe = cyclegan(generator=generator).resolve()
    system = build_system(recipe)
    initialize(system, recipe)
    network = system.directions["A2B"].eval()
    if generator.get("norm", "instance").startswith("instance"):
        with torch.no_grad():  # the small initial weights would hide errors
            for parameter in network.parameters():
                parameter.mul_(4)
    return Translator(LoadedGenerator(network, "A2B", recipe, step=0), **options)


def uneven_image(height: int, width: int) -> Tensor:
    """An image that is dark and flat on the left, noisy on the right, so that the statistics of tiles differ."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width)) * 2 - 1
    image[..., : width // 2] = image[..., : width // 2] * 0.1 - 0.8
    return image


def difference(output: Tensor, expected: Tensor) -> float:
    return float((output - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", GENERATORS)
def test_tiles_equal_the_whole_image(name: str) -> None:
    image = uneven_image(72, 101)
    whole = open_translator(GENERATORS[name], tile=None).translate_tensor(image)
    tiled = open_translator(GENERATORS[name], tile=24).translate_tensor(image)
    assert tiled.shape == whole.shape
    assert difference(tiled, whole) < 1e-5
    assert float((tiled - whole).abs().max()) < 1e-4


@settings(max_examples=10)
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(1, 40))
def test_any_size_and_any_tile(height: int, width: int, tile: int) -> None:
    image = uneven_image(height, width)
    whole = open_translator(RESNET, tile=None).translate_tensor(image)
    assert torch.allclose(open_translator(RESNET, tile=tile).translate_tensor(image), whole, atol=1e-4)


def test_photograph_that_is_converted_tile_by_tile() -> None:
    image = make_image(5, (150, 91))
    whole = np.asarray(open_translator(RESNET, tile=None)(image)).astype(int)
    assert np.abs(np.asarray(open_translator(RESNET, tile=32)(image)).astype(int) - whole).max() <= 1


def translate(
    network: nn.Module, image: Tensor, *, read: Callable[[slice, slice], Tensor] | None = None, **options: Any
) -> Tensor:
    """Translate in tiles of 32 pixels without a `Translator`."""
    translation = torch.empty_like(image)

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        translation[..., rows, columns] = part

    with torch.inference_mode():
        translate_in_tiles(
            network,
            network,
            (image.shape[2], image.shape[3]),
            read or (lambda rows, columns: image[..., rows, columns]),
            write,
            tile=32,
            reach=measure_reach(network, 3),
            **options,
        )
    return translation


def test_tiles_with_their_own_statistics_differ() -> None:
    translator = open_translator(RESNET, tile=None)
    network, image = translator.generator.network, uneven_image(96, 96)
    whole = translator.translate_tensor(image)
    assert difference(translate(network, image), whole) < 1e-5
    assert difference(translate(network, image, statistics="tile"), whole) > 0.05


class AroundChain(nn.Module):
    """A chain between layers that also see the image."""

    size_multiple = 4

    def __init__(self) -> None:
        super().__init__()
        layers = open_translator(RESNET).generator.network.layers
        assert isinstance(layers, Chain)
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(2 * images)


def test_pixels_are_read_for_the_first_and_the_last_pass_only() -> None:
    for network in (open_translator(RESNET).generator.network, AroundChain().eval()):
        image, reads = uneven_image(96, 96), []

        def note(rows: slice, columns: slice, image: Tensor = image, reads: list[int] = reads) -> Tensor:
            reads.append(rows.start)
            return image[..., rows, columns]

        translation = translate(network, image, read=note, cache=FeatureCache(1 << 40))
        assert len(reads) == 2 * 9
        with torch.inference_mode():
            assert difference(translation, network(image)) < 1e-5


@pytest.mark.parametrize("cache_bytes", [0, 300_000, 1 << 40])
def test_cache_changes_only_how_often_a_layer_is_called(cache_bytes: int) -> None:
    network, image = open_translator(RESNET).generator.network, uneven_image(96, 96)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    calls: list[int] = []
    first.register_forward_hook(lambda *_: calls.append(1))
    translation = translate(network, image, cache=FeatureCache(cache_bytes))
    assert torch.equal(translation, translate(open_translator(RESNET).generator.network, image))
    tiles, norms = 9, sum(isinstance(layer, nn.InstanceNorm2d) for layer in network.modules())
    count = len(calls) - 2  # measuring the receptive field takes two
    if cache_bytes == 0:
        assert count == tiles * (norms + 1)
    elif cache_bytes == 1 << 40:
        assert count == tiles
    else:
        assert tiles < count < tiles * (norms + 1)


def test_the_networks_norms_are_restored() -> None:
    translator = open_translator(RESNET, tile=24)
    image = uneven_image(48, 48)
    translator.translate_tensor(image)
    assert not [layer for layer in translator.generator.network.modules() if "forward" in vars(layer)]
    translator.memory.tile = None
    whole = translator.translate_tensor(image)
    assert torch.equal(whole, open_translator(RESNET, tile=None).translate_tensor(image))


class TestReach:
    def test_reaches_of_convolutions_add_up(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 7, padding=3), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))
        network.size_multiple = 1  # type: ignore[assignment]
        assert measure_reach(network, 3) == 4

    def test_pixels_out_of_reach_have_no_effect(self) -> None:
        network = open_translator({**RESNET, "norm": "none"}).generator.network
        reach = measure_reach(network, 3)
        image = uneven_image(8, 256)
        changed = image.clone()
        changed[..., 128] += 0.5
        with torch.inference_mode():
            moved = (network(changed) - network(image)).abs().amax((0, 1, 2)).nonzero().flatten()
        assert 128 - reach <= int(moved[0])
        assert int(moved[-1]) <= 128 + 3 + reach  # columns are probed in groups of four

    def test_network_with_an_unbounded_receptive_field(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))
        network.size_multiple = 1  # type: ignore[assignment]
        with pytest.raises(DataError, match="depends on the whole image"):
            measure_reach(network, 3)

    def test_network_that_draws_random_numbers(self) -> None:
        translator = open_translator({"name": "unet", "depth": 3, "width": 4, "noise_at_test": True}, tile=24)
        with pytest.raises(DataError, match="an image of 48×48 pixels: the network draws random numbers"):
            translator.translate_tensor(uneven_image(48, 48))


class TestAuto:
    def input_sizes(self, translator: Translator, image: Image.Image) -> list[tuple[int, ...]]:
        sizes: list[tuple[int, ...]] = []

        def record(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if not inputs[0].is_meta:  # meta tensors only count bytes
                sizes.append(tuple(inputs[0].shape[2:]))

        translator.generator.network.register_forward_pre_hook(record)
        translator(image)
        return sizes

    def test_whole_image_if_it_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.inference.memory._WHOLE_PIXELS", 0)
        assert self.input_sizes(open_translator(RESNET), make_image(0, (512, 400))) == [(400, 512)]

    def test_tiles_if_it_does_not_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        translator = open_translator(RESNET)
        free = count_translation_bytes(translator.generator.network, (1, 3, 400, 512))
        monkeypatch.setattr("gantoolkit.inference.memory.available_memory", lambda device: free)
        monkeypatch.setattr("gantoolkit.inference.memory._WHOLE_PIXELS", 0)
        sizes = self.input_sizes(translator, make_image(0, (512, 400)))
        assert max(height * width for height, width in sizes) < 400 * 512

    def test_batch_that_does_not_fit_is_translated_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        translator = open_translator(RESNET)
        free = 2 * count_translation_bytes(translator.generator.network, (1, 3, 64, 64))
        monkeypatch.setattr("gantoolkit.inference.memory.available_memory", lambda device: free)
        monkeypatch.setattr("gantoolkit.inference.memory._WHOLE_PIXELS", 0)
        images = torch.cat([uneven_image(64, 64)] * 4)
        assert torch.equal(
            translator.translate_tensor(images)[:1], open_translator(RESNET).translate_tensor(images[:1])
        )

    @pytest.mark.parametrize(("free", "on_device"), [(10**9, 5 * 10**8), (10**8, None)])
    def test_features_are_cached_on_the_device_and_then_on_the_host(
        self, free: int, on_device: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On the device, at most half of its memory, and only what the computation of a tile leaves."""
        translator = open_translator(RESNET, tile=1024)
        required = 1.5 * count_translation_bytes(translator.generator.network, (1, 3, 1052, 1052))
        monkeypatch.setattr(
            "gantoolkit.inference.memory.available_memory",
            lambda device: free if device.type == "cuda" else 10**7,
        )
        translator.memory.device = torch.device("cuda")
        bound = translator.memory.bound(2048, 2048)
        translator.memory.cache_share = 0
        cached = bound - translator.memory.bound(2048, 2048) - 5 * 10**6
        assert cached == pytest.approx(free - required if on_device is None else on_device, abs=1)

    def test_counted_bytes_are_those_of_the_layers(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
        floats = (3 + 8 + 8) * 64 * 64
        assert count_translation_bytes(network, (1, 3, 64, 64)) == 4 * floats


def test_tile_of_zero_pixels_is_rejected() -> None:
    with pytest.raises(DataError, match="tile=0: must be at least 1 pixel"):
        open_translator(RESNET, tile=0)


def test_the_command(tmp_path: Path, dataset: Path) -> None:
    from gantoolkit.cli import main
    from gantoolkit.run import Run

    recipe = make_tiny().swap({"generator": RESNET})
    folder = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu", stop_at=1).path
    make_image(1, (80, 60)).save(tmp_path / "large.png")
    for tile in ("none", "24"):
        command = ["translate", str(folder), "--direction", "A2B", str(tmp_path / "large.png"), "--device", "cpu"]
        assert main([*command, "--out", str(tmp_path / tile), "--tile", tile]) == 0
    whole, tiled = (np.asarray(Image.open(tmp_path / tile / "large.png")).astype(int) for tile in ("none", "24"))
    assert np.abs(tiled - whole).max() <= 1
    assert Run.open(folder).translator("A2B", device="cpu", tile=24).memory.tile == 24


@given(
    units=st.integers(1, 60), tile=st.integers(1, 80), reach=st.integers(0, 40), multiple=st.sampled_from([1, 2, 4, 16])
)
def test_all_tiles_have_inputs_of_one_length_and_full_borders(units: int, tile: int, reach: int, multiple: int) -> None:
    length = units * multiple
    image, inputs, outputs = torch.zeros(1, 1, length, multiple), [], []
    network = nn.Identity()
    network.size_multiple = multiple  # type: ignore[assignment]

    def read(rows: slice, columns: slice) -> Tensor:
        inputs.append(rows)
        return image[..., rows, columns]

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        assert part.shape[2] == rows.stop - rows.start
        outputs.append(rows)

    translate_in_tiles(network, network, (length, multiple), read, write, tile=tile, reach=reach)
    assert {rows.stop - rows.start for rows in inputs} == {padded_tile_length(length, tile, reach, multiple)}
    assert [row for rows in outputs for row in range(rows.start, rows.stop)] == list(range(length))
    for input, output in zip(inputs, outputs, strict=True):
        assert output.stop - output.start <= max(tile, multiple)
        assert 0 <= input.start <= max(0, output.start - reach)
        assert min(length, output.stop + reach) <= input.stop <= length
        assert input.start % multiple == 0


def test_two_tiles_need_one_border_each() -> None:
    assert padded_tile_length(300, tile=256, reach=83, multiple=4) == 152 + 84


def test_memory_stays_below_the_bound_which_grows_with_the_pixels_alone() -> None:
    translator = open_translator(RESNET, tile=64)
    translator.memory.cache_share = 0
    for height, width in ((200, 328), (400, 328)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        with LiveBytes() as ledger:
            ledger.start_peak()
            before = ledger.now
            translator.translate_pixels([pixels])
            memory = ledger.peak - before
        assert 0 < memory <= translator.memory.bound(height, width)
    bounds = [translator.memory.bound(side, side) for side in (512, 1024, 2048)]
    pixels_alone = [6 * side * side for side in (512, 1024, 2048)]
    assert len({bound - alone for bound, alone in zip(bounds, pixels_alone, strict=True)}) == 1
    translator.memory.tile = None
    assert translator.memory.bound(4096, 4096) > 3 * translator.memory.bound(2048, 2048) > bounds[-1]
