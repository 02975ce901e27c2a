from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers.small import make_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import gantoolkit
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.inference import Translator, translate_files
from gantoolkit.inference.manifest import fingerprint
from gantoolkit.inference.sources import SourceFile, open_sources
from gantoolkit.inference.targets import plan_targets
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.run import Run
from gantoolkit.runs import LoadedGenerator, load_generator, write_generator


class Negative(nn.Module):
    """A generator with a known output: every value negated. Sizes must be multiples of 8."""

    size_multiple = 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[-1] % 8 == images.shape[-2] % 8 == 0
        self.sizes.append(tuple(images.shape))
        return self.weight * images


def negative() -> Translator:
    return Translator(LoadedGenerator(Negative(), "A2B", cyclegan(), step=0))


@pytest.fixture
def run(tiny: Recipe, dataset: Path, tmp_path: Path) -> Run:
    return gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)


@given(width=st.integers(1, 40), height=st.integers(1, 40))
def test_translation_keeps_any_size_and_covers_every_pixel(width: int, height: int) -> None:
    pixels = np.random.default_rng(width * 41 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(negative()(Image.fromarray(pixels))), 255 - pixels)


def test_accepted_sizes_are_not_padded_and_images_of_one_size_form_a_batch() -> None:
    translator = negative()
    images = translator.translate([make_image(0, (16, 24)), make_image(1, (17, 24)), make_image(2, (16, 24))])
    assert [image.size for image in images] == [(16, 24), (17, 24), (16, 24)]
    assert isinstance(translator.generator.network, Negative)
    assert translator.generator.network.sizes == [(2, 3, 24, 16), (1, 3, 24, 24)]


def test_padding_reflects_the_image() -> None:
    batches: list[torch.Tensor] = []
    translator = negative()
    translator.generator.network.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0]))
    image = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 8, 6) / 10
    translator.translate_tensor(image)
    assert torch.allclose(batches[0][0, 0, 0] * 10, torch.tensor([0.0, 1, 2, 3, 4, 5, 4, 3]))


def test_generator_file_is_self_contained(run: Run) -> None:
    for direction in ("A2B", "B2A"):
        translator = Translator.load(run.folder.generators / f"{direction}.safetensors", device="cpu")
        assert translator.direction == direction
        assert translator.generator.step == 2
        assert not translator.generator.network.training
        image = make_image(3, (37, 30))
        assert np.array_equal(np.asarray(translator(image)), np.asarray(run.translator(direction, device="cpu")(image)))


def test_the_two_directions_are_two_networks(run: Run) -> None:
    image = make_image(3)
    A2B, B2A = (np.asarray(run.translator(direction, device="cpu")(image)) for direction in ("A2B", "B2A"))
    assert not np.array_equal(A2B, B2A)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 200)])
def test_the_smallest_images_can_be_translated(size: tuple[int, int], run: Run) -> None:
    assert run.translator("A2B", device="cpu")(make_image(0, size)).size == size


def test_domains_with_different_channels(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(tiny.swap({"data.channels_B": 1}), dataset, tmp_path / "gray", device="cpu", stop_at=1)
    assert run.translator("A2B", device="cpu")(make_image(0)).mode == "L"
    assert run.translator("B2A", device="cpu")(make_image(0)).mode == "RGB"


def test_unknown_directions_and_empty_runs_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no generator for direction 'A2C'; there is A2B, B2A"):
        run.translator("A2C")
    for path in run.folder.generators.iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="nothing was saved yet; train first"):
        run.translator("A2B")
    with pytest.raises(CheckpointError, match=r"is not a run \(it has no recipe.toml\)"):
        Run.open(tmp_path)


def test_file_with_a_direction_that_its_recipe_lacks_is_rejected(run: Run, tmp_path: Path) -> None:
    loaded = run.translator("A2B").generator
    write_generator(tmp_path / "odd.safetensors", loaded.network, direction="C2D", recipe=loaded.recipe, step=0)
    with pytest.raises(CheckpointError, match="its direction is 'C2D', but its recipe has only A2B, B2A"):
        Translator.load(tmp_path / "odd.safetensors")


def test_noise_is_the_same_for_every_image_and_every_time() -> None:
    class Noisy(nn.Module):
        size_multiple = 1
        stochastic = True

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean() + torch.rand(images.shape) - 0.5

    translator = Translator(LoadedGenerator(Noisy(), "A2B", cyclegan(), step=0))
    images = [Image.new("RGB", (8, 8), color) for color in ("black", "gray", "white")]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    together = translator.translate(images)
    assert torch.equal(torch.rand(1), expected), "the global random state changed"
    assert together == [translator(image) for image in images]
    assert together[0] != together[1]


def test_damaged_generator_is_rejected(run: Run) -> None:
    path = run.folder.generators / "A2B.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its content does not match its checksum"):
        run.translator("A2B")
    path.write_bytes(b"\x80\x04cposix\nsystem\n")  # a pickle that would run a command
    with pytest.raises(CheckpointError, match="is not a gantoolkit file, or damaged"):
        run.translator("A2B")


def plan(sources: Sequence[Path], out: Path, **options: Any) -> dict[SourceFile, Path]:
    with open_sources(sources, out=out) as files:
        return plan_targets(files, out, **options)


class TestFiles:
    def test_names_and_folders_are_preserved(self, tmp_path: Path) -> None:
        for name in ("in/a.jpg", "in/deep/b.PNG", "in/deep/c.webp"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            make_image(0).save(tmp_path / name)
        single = tmp_path / "single.jpeg"
        make_image(1).save(single)
        targets = plan([tmp_path / "in", single], tmp_path / "out")
        results = list(translate_files(negative(), targets, batch_size=2))
        assert {str(result.target.relative_to(tmp_path / "out")) for result in results} == {
            "a.jpg",
            "deep/b.PNG",
            "deep/c.png",
            "single.jpeg",
        }
        formats = {}
        for result in results:
            with Image.open(result.target) as image:
                assert image.size == (40, 36)
                formats[result.target.name] = image.format
        assert formats == {"a.jpg": "JPEG", "b.PNG": "PNG", "c.png": "PNG", "single.jpeg": "JPEG"}

    def test_format_can_be_chosen(self, tmp_path: Path) -> None:
        make_image(0).save(tmp_path / "a.jpg")
        assert list(plan([tmp_path / "a.jpg"], tmp_path / "out", form="png").values()) == [tmp_path / "out" / "a.png"]

    def test_bad_file_is_reported_and_the_others_are_translated(self, tmp_path: Path) -> None:
        make_image(0).save(tmp_path / "a.png")
        (tmp_path / "b.png").write_text("broken")
        make_image(1).save(tmp_path / "c.png")
        results = list(translate_files(negative(), plan([tmp_path], tmp_path / "out"), batch_size=3))
        assert {result.source.path.name: bool(result.problem) for result in results} == {
            "a.png": False,
            "b.png": True,
            "c.png": False,
        }
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]

    def test_size_that_the_network_rejects_is_reported_alone(self, tmp_path: Path) -> None:
        class Choosy(Negative):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                if images.shape[-1] == 8:
                    raise ValueError("too narrow")
                return super().forward(images)

        for name, width in (("a", 16), ("b", 8), ("c", 16)):
            make_image(0, (width, 16)).save(tmp_path / f"{name}.png")
        translator = Translator(LoadedGenerator(Choosy(), "A2B", cyclegan(), step=0))
        results = list(translate_files(translator, plan([tmp_path], tmp_path / "out")))
        assert [result.problem for result in results] == [
            "",
            f"{tmp_path / 'b.png'}: an image of 8×16 pixels cannot be translated: too narrow",
            "",
        ]

    def test_sources_and_translations_are_never_overwritten(self, tmp_path: Path) -> None:
        make_image(0).save(tmp_path / "a.bmp")
        make_image(0).save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"would both be written to .*a\.png; --keep-endings names them"):
            plan([tmp_path], tmp_path / "out")
        with pytest.raises(DataError, match=r"a\.png: would be overwritten by its own translation"):
            plan([tmp_path / "a.png"], tmp_path)
        with pytest.raises(DataError, match="no such file or folder"):
            plan([tmp_path / "none.png"], tmp_path / "out")
        with pytest.raises(DataError, match="is a URL, not a file; download it first"):
            plan([Path("https://example.org/horse.jpg")], tmp_path / "out")


def test_manifest_does_not_depend_on_whether_weights_are_rounded_already(run: Run) -> None:
    """Which weights are rounded when a generator is loaded depends on the device."""
    path = run.path / "generators" / "A2B.safetensors"
    rounded = Translator.load(path, device="cpu", precision="bf16")
    plain = Translator(replace(load_generator(path), precision="bf16"))
    dtypes = [{tensor.dtype for tensor in each.generator.network.state_dict().values()} for each in (rounded, plain)]
    assert dtypes[0] != dtypes[1]
    assert fingerprint(rounded) == fingerprint(plain)
