"""Images in tiles are what they are whole: the statistics of instance norm are those of the whole image."""

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
from gantoolkit.inference.tiling import measure_reach, seen_length, translate_in_tiles
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
        with torch.no_grad():  # weights as small as those that training starts with would hide a lot
            for parameter in network.parameters():
                parameter.mul_(4)
    return Translator(LoadedGenerator(network, "A2B", recipe, step=0), **options)


def uneven_image(height: int, width: int) -> Tensor:
    """Dark and flat on one side, lively on the other: tiles on their own would have other statistics."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width)) * 2 - 1
    image[..., : width // 2] = image[..., : width // 2] * 0.1 - 0.8
    return image


def difference(made: Tensor, right: Tensor) -> float:
    return float((made - right).norm() / right.norm())


@pytest.mark.parametrize("name", GENERATORS)
def test_tiles_give_what_the_whole_image_gives(name: str) -> None:
    image = uneven_image(72, 101)
    whole = open_translator(GENERATORS[name], tile=None).translate_tensor(image)
    tiled = open_translator(GENERATORS[name], tile=24).translate_tensor(image)
    assert tiled.shape == whole.shape
    assert difference(tiled, whole) < 1e-5
    assert float((tiled - whole).abs().max()) < 1e-4


@settings(max_examples=10)
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(1, 40))
def test_any_size_in_any_tiles(height: int, width: int, tile: int) -> None:
    image = uneven_image(height, width)
    whole = open_translator(RESNET, tile=None).translate_tensor(image)
    assert torch.allclose(open_translator(RESNET, tile=tile).translate_tensor(image), whole, atol=1e-4)


def test_a_photograph_that_is_never_whole_in_floats() -> None:
    image = make_image(5, (150, 91))
    whole = np.asarray(open_translator(RESNET, tile=None)(image)).astype(int)
    assert np.abs(np.asarray(open_translator(RESNET, tile=32)(image)).astype(int) - whole).max() <= 1


def translate(network: nn.Module, image: Tensor, **options: Any) -> Tensor:
    """In tiles of 32 pixels, without a translator around."""
    made = torch.empty_like(image)

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        made[..., rows, columns] = part

    with torch.inference_mode():
        translate_in_tiles(
            network,
            network,
            (image.shape[2], image.shape[3]),
            lambda rows, columns: image[..., rows, columns],
            write,
            tile=32,
            reach=measure_reach(network, 3),
            **options,
        )
    return made


def test_tiles_by_themselves_differ() -> None:
    translator = open_translator(RESNET, tile=None)
    network, image = translator.generator.network, uneven_image(96, 96)
    whole = translator.translate_tensor(image)
    assert difference(translate(network, image), whole) < 1e-5
    assert difference(translate(network, image, statistics="tile"), whole) > 0.05


@pytest.mark.parametrize("keep", [0, 300_000, 1 << 40])
def test_what_is_kept_changes_only_how_often_a_layer_is_called(keep: int) -> None:
    network, image = open_translator(RESNET).generator.network, uneven_image(96, 96)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    calls: list[int] = []
    first.register_forward_hook(lambda *_: calls.append(1))
    made = translate(network, image, keep=keep)
    assert torch.equal(made, translate(open_translator(RESNET).generator.network, image, keep=0))
    tiles, norms = 9, sum(isinstance(layer, nn.InstanceNorm2d) for layer in network.modules())
    seen = len(calls) - 2  # finding out how far it sees takes two
    if keep == 0:
        assert seen == tiles * (norms + 1)
    elif keep == 1 << 40:
        assert seen == tiles
    else:
        assert tiles < seen < tiles * (norms + 1)


def test_the_networks_own_norms_are_back_afterwards() -> None:
    translator = open_translator(RESNET, tile=24)
    image = uneven_image(48, 48)
    translator.translate_tensor(image)
    assert not [layer for layer in translator.generator.network.modules() if "forward" in vars(layer)]
    translator.tile = None
    whole = translator.translate_tensor(image)
    assert torch.equal(whole, open_translator(RESNET, tile=None).translate_tensor(image))


class TestReach:
    def test_convolutions_add_up(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 7, padding=3), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 3, padding=1))
        network.size_multiple = 1  # type: ignore[assignment]
        assert measure_reach(network, 3) == 4

    def test_what_is_out_of_reach_changes_nothing(self) -> None:
        network = open_translator({**RESNET, "norm": "none"}).generator.network
        reach = measure_reach(network, 3)
        image = uneven_image(8, 256)
        changed = image.clone()
        changed[..., 128] += 0.5
        with torch.inference_mode():
            moved = (network(changed) - network(image)).abs().amax((0, 1, 2)).nonzero().flatten()
        assert 128 - reach <= int(moved[0])
        assert int(moved[-1]) <= 128 + 3 + reach  # columns go in fours

    def test_a_network_that_sees_everything(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))
        network.size_multiple = 1  # type: ignore[assignment]
        with pytest.raises(DataError, match="depends on the whole image"):
            measure_reach(network, 3)

    def test_one_that_draws_random_numbers(self) -> None:
        translator = open_translator({"name": "unet", "depth": 3, "width": 4, "noise_at_test": True}, tile=24)
        with pytest.raises(DataError, match="an image of 48×48 pixels: its network draws random numbers"):
            translator.translate_tensor(uneven_image(48, 48))


class TestAuto:
    def sizes(self, translator: Translator, image: Image.Image) -> list[tuple[int, ...]]:
        seen: list[tuple[int, ...]] = []

        def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if not inputs[0].is_meta:  # that only counts bytes
                seen.append(tuple(inputs[0].shape[2:]))

        translator.generator.network.register_forward_pre_hook(look)
        translator(image)
        return seen

    def test_whole_where_it_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.inference.translator._ALWAYS_WHOLE", 0)
        assert self.sizes(open_translator(RESNET), make_image(0, (512, 400))) == [(400, 512)]

    def test_tiles_where_it_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        translator = open_translator(RESNET)
        free = count_translation_bytes(translator.generator.network, (1, 3, 400, 512))
        monkeypatch.setattr("gantoolkit.inference.translator.available_memory", lambda device: free)
        monkeypatch.setattr("gantoolkit.inference.translator._ALWAYS_WHOLE", 0)
        sizes = self.sizes(translator, make_image(0, (512, 400)))
        assert max(height * width for height, width in sizes) < 400 * 512

    def test_a_batch_that_does_not_fit_goes_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        translator = open_translator(RESNET)
        free = 2 * count_translation_bytes(translator.generator.network, (1, 3, 64, 64))
        monkeypatch.setattr("gantoolkit.inference.translator.available_memory", lambda device: free)
        monkeypatch.setattr("gantoolkit.inference.translator._ALWAYS_WHOLE", 0)
        images = torch.cat([uneven_image(64, 64)] * 4)
        assert torch.equal(
            translator.translate_tensor(images)[:1], open_translator(RESNET).translate_tensor(images[:1])
        )

    def test_the_count_is_that_of_the_layers(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
        floats = (3 + 8 + 8) * 64 * 64
        assert count_translation_bytes(network, (1, 3, 64, 64)) == 4 * floats


def test_no_pixels_are_no_tile() -> None:
    with pytest.raises(DataError, match="a tile of 0 pixels has none"):
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
    assert Run.open(folder).translator("A2B", device="cpu", tile=24).tile == 24


@given(
    units=st.integers(1, 60), tile=st.integers(1, 80), reach=st.integers(0, 40), multiple=st.sampled_from([1, 2, 4, 16])
)
def test_all_tiles_see_equally_much_and_as_far_as_they_must(units: int, tile: int, reach: int, multiple: int) -> None:
    length = units * multiple
    image, seen, given_rows = torch.zeros(1, 1, length, multiple), [], []
    network = nn.Identity()
    network.size_multiple = multiple  # type: ignore[assignment]

    def read(rows: slice, columns: slice) -> Tensor:
        seen.append(rows)
        return image[..., rows, columns]

    def write(rows: slice, columns: slice, part: Tensor) -> None:
        assert part.shape[2] == rows.stop - rows.start
        given_rows.append(rows)

    translate_in_tiles(network, network, (length, multiple), read, write, tile=tile, reach=reach)
    assert {rows.stop - rows.start for rows in seen} == {seen_length(length, tile, reach, multiple)}
    assert [row for rows in given_rows for row in range(rows.start, rows.stop)] == list(range(length))
    for sees, gives in zip(seen, given_rows, strict=True):
        assert gives.stop - gives.start <= max(tile, multiple)
        assert 0 <= sees.start <= max(0, gives.start - reach)
        assert min(length, gives.stop + reach) <= sees.stop <= length
        assert sees.start % multiple == 0


def test_two_tiles_need_one_border_each() -> None:
    assert seen_length(300, tile=256, reach=83, multiple=4) == 152 + 84


def test_no_more_memory_is_taken_than_the_bound_and_that_grows_by_pixels_alone() -> None:
    translator = open_translator(RESNET, tile=64)
    translator.share_kept = 0
    for height, width in ((200, 328), (400, 328)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        with LiveBytes() as ledger:
            ledger.start_peak()
            before = ledger.now
            translator.translate_pixels([pixels])
            taken = ledger.peak - before
        assert 0 < taken <= translator.memory_bound(height, width)
    bounds = [translator.memory_bound(side, side) for side in (512, 1024, 2048)]
    pixels_alone = [6 * side * side for side in (512, 1024, 2048)]
    assert len({bound - alone for bound, alone in zip(bounds, pixels_alone, strict=True)}) == 1
    translator.tile = None
    assert translator.memory_bound(4096, 4096) > 3 * translator.memory_bound(2048, 2048) > bounds[-1]
