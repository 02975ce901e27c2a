import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from _helpers.small import TINY, make_dataset, make_image, make_tiny
from safetensors import safe_open
from torch import nn

import gantoolkit
from gantoolkit.errors import DataError, ExportError
from gantoolkit.export import export_generator, formats
from gantoolkit.layers import convolution
from gantoolkit.layers.normalization import InstanceNorm
from gantoolkit.recipes import Recipe, cogan, pix2pix
from gantoolkit.recipes.building import build_system
from gantoolkit.runs import LoadedGenerator, write_generator

FORMATS = ("onnx", "torch", "safetensors")
SUFFIXES = {"onnx": "onnx", "torch": "pt2", "safetensors": "safetensors"}

LOAD_WITHOUT_GANTOOLKIT = """
import json, sys
sys.modules["gantoolkit"] = None  # makes its import fail
import numpy, torch
extra = {"gantoolkit.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
images = torch.from_numpy(numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], program.module()(images).detach().numpy())
print(json.loads(extra["gantoolkit.json"])["direction"])
"""


def generator_of(recipe: Recipe, direction: str = "A2B") -> LoadedGenerator:
    torch.manual_seed(3)
    recipe = recipe.resolve()
    network = build_system(recipe).directions[direction].eval()
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            nn.init.normal_(tensor, 0, 0.15)
        elif name.endswith("running_mean"):
            tensor.uniform_(-0.5, 0.5)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    return LoadedGenerator(network, direction, recipe, step=7)


@pytest.fixture
def generator(tiny: Recipe) -> LoadedGenerator:
    return generator_of(tiny)


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def difference(output: Any, expected: torch.Tensor) -> float:
    return float(np.abs(np.asarray(output) - expected.detach().numpy()).max())


def run_onnx(path: Path, images: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_verified_and_described(format: Any, generator: LoadedGenerator, tmp_path: Path) -> None:
    path = tmp_path / f"net.{SUFFIXES[format]}"
    result = export_generator(generator, path, format)
    assert result.difference <= 1e-4
    assert result.value_difference == result.difference * 127.5
    assert result.target.value_unit == "levels of 255"
    assert result.sizes == ("1×16×16", "2×16×24", "1×24×16")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if format == "onnx":
        description = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif format == "torch":
        extra = {"gantoolkit.json": ""}
        torch.export.load(path, extra_files=extra)
        description = json.loads(extra["gantoolkit.json"])
    else:
        with safe_open(path, framework="pt") as file:
            description = file.metadata()
            assert set(file.keys()) == set(generator.network.state_dict())
    assert Recipe.from_toml(description.pop("recipe")).resolve() == generator.recipe
    assert {
        "direction": "A2B",
        "layout": "NCHW",
        "range": "[-1, 1]",
        "in_channels": "3",
        "out_channels": "3",
        "in_images": "RGB, 8-bit",
        "in_values": "network input = value / 127.5 - 1",
        "size_multiple": "4",
        "smallest_size": "8",
        "step": "7",
    }.items() <= description.items()


GENERATORS = {
    "resnet, instance": {},
    "resnet, affine, replicate": {"generator.norm": "instance_affine", "generator.padding": "replicate"},
    "resnet, batch, zero": {"generator.norm": "batch", "generator.padding": "zero", "generator.dropout": 0.5},
    "resnet, none, resize": {"generator.norm": "none", "generator.upsampling": "resize"},
    "unet, instance": {"generator": {"name": "unet", "width": 4, "depth": 3}},
    "unet, batch": {"generator": {"name": "unet", "width": 4, "depth": 3, "norm": "batch", "dropout": 0.5}},
    "gray to color": {"data.channels_A": 1},
}


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_accepts_any_size_and_batch(name: str, tmp_path: Path) -> None:
    generator = generator_of(make_tiny().swap(GENERATORS[name]))
    multiple, channels = getattr(generator.network, "size_multiple", 0), generator.source.channels
    export_generator(generator, tmp_path / "net.onnx", "onnx")
    export_generator(generator, tmp_path / "net.pt2", "torch")
    program = torch.export.load(tmp_path / "net.pt2").module()
    for count, rows, columns in ((1, 2, 2), (3, 7, 2), (2, 9, 11)):
        images = random_images(count, channels, rows * multiple, columns * multiple)
        expected = generator.network(images)
        assert difference(run_onnx(tmp_path / "net.onnx", images), expected) < 1e-4
        assert difference(program(images).detach(), expected) < 1e-4


def test_instance_norm_uses_the_whole_image(generator: LoadedGenerator, tmp_path: Path) -> None:
    export_generator(generator, tmp_path / "net.onnx", "onnx")
    images = random_images(1, 3, 48, 80)
    images[..., 40:] += 3  # so that a part of the image has other statistics
    assert any(isinstance(layer, InstanceNorm) for layer in generator.network.modules())
    assert difference(run_onnx(tmp_path / "net.onnx", images), generator.network(images)) < 1e-4


def test_wide_blocks_with_winograd_convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(convolution._MIN_CHANNEL_TILES, torch.float32, 1)
    generator = generator_of(make_tiny().swap({"generator.width": 32, "data.crop_size": 64, "data.load_size": 64}))
    assert export_generator(generator, tmp_path / "net.onnx", "onnx").difference < 1e-4


def test_dimensions_are_named_and_weights_are_in_the_same_file(generator: LoadedGenerator, tmp_path: Path) -> None:
    export_generator(generator, tmp_path / "net.onnx", "onnx")
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for value, name in ((model.graph.input[0], "images"), (model.graph.output[0], "translation")):
        shape = value.type.tensor_type.shape.dim
        assert value.name == name
        assert [shape[0].dim_param, shape[1].dim_value] == ["batch", 3]
        assert [shape[2].dim_param, shape[3].dim_param] == ["4*rows", "4*columns"]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_file_contains_no_local_path(format: Any, generator: LoadedGenerator, tmp_path: Path) -> None:
    export_generator(generator, tmp_path / "net", format)
    assert str(Path(formats.__file__).parents[2]).encode() not in (tmp_path / "net").read_bytes()


def test_torch_file_loads_without_gantoolkit(generator: LoadedGenerator, tmp_path: Path) -> None:
    export_generator(generator, tmp_path / "net.pt2", "torch")
    images = random_images(2, 3, 20, 36)
    np.save(tmp_path / "in.npy", images.numpy())
    arguments = [tmp_path / name for name in ("net.pt2", "in.npy", "out.npy")]
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_GANTOOLKIT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "A2B\n"
    assert difference(np.load(tmp_path / "out.npy"), generator.network(images)) < 1e-4


class Sabotaged(nn.Module):
    """A network whose output differs when it is exported."""

    size_multiple = 1

    def __init__(self, network: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.network(images)
        return self.change(output) if torch.compiler.is_exporting() else output


@pytest.mark.parametrize("format", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda output: output + 1e-2, "differs from the network's by 1.0e-02"),
        (lambda output: output * torch.nan, "differs from the network's by nan"),
        (lambda output: output[:, :1], "becomes"),
    ],
)
def test_file_with_a_different_output_is_not_written(
    change: Any, reason: str, format: Any, tiny: Recipe, tmp_path: Path
) -> None:
    sabotaged = LoadedGenerator(Sabotaged(nn.Conv2d(3, 3, 1), change).eval(), "A2B", tiny.resolve(), step=0)
    path = tmp_path / "net"
    path.write_text("before")
    with pytest.raises(ExportError, match=rf"net: was not written: .*{reason}"):
        export_generator(sabotaged, path, format)
    assert [file.name for file in tmp_path.iterdir()] == ["net"]
    assert path.read_text() == "before"


def test_network_that_cannot_be_traced_raises_a_short_error(tiny: Recipe, tmp_path: Path) -> None:
    class Branching(nn.Module):
        size_multiple = 1

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.mean() > 0 else -images

    with pytest.raises(ExportError, match="was not written: "):
        export_generator(LoadedGenerator(Branching(), "A2B", tiny.resolve(), step=0), tmp_path / "net.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_generators_that_cannot_be_exported(tmp_path: Path) -> None:
    unet = {"name": "unet", "width": 4, "depth": 3, "dropout": 0.5, "noise_at_test": True}
    noisy = generator_of(pix2pix().swap({**TINY, "generator": unet}))
    for format in ("onnx", "torch"):
        with pytest.raises(ExportError, match="draws random numbers when it translates"):
            export_generator(noisy, tmp_path / "net", format)
    assert export_generator(noisy, tmp_path / "net.safetensors", "safetensors").difference == 0
    coupled = cogan().swap({"coupled_generator.width": 2, "data.crop_size": 16, "data.load_size": 16}).resolve()
    searching = LoadedGenerator(build_system(coupled).directions["A2B"], "A2B", coupled, step=0)
    with pytest.raises(ExportError, match="translates by optimizing each image"):
        export_generator(searching, tmp_path / "net", "safetensors")


def test_only_float32_is_exported(generator: LoadedGenerator, tmp_path: Path) -> None:
    narrow = LoadedGenerator(generator.network, "A2B", generator.recipe, 0, "bf16")
    with pytest.raises(ExportError, match="load it with device='cpu', precision='fp32'"):
        export_generator(narrow, tmp_path / "net.onnx", "onnx")


def test_missing_package_is_named(generator: LoadedGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"needs the extra `export`: pip install gantoolkit\[export\]"):
        export_generator(generator, tmp_path / "net.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_given_images_are_used(generator: LoadedGenerator, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        make_image(0, (50, 30)).save(tmp_path / "in" / name)
    result = export_generator(generator, tmp_path / "net.safetensors", "safetensors", images=[tmp_path / "in"])
    assert result.images == f"{tmp_path / 'in' / 'a.png'}, {tmp_path / 'in' / 'b.png'}"
    with pytest.raises(DataError, match="no such file"):
        export_generator(generator, tmp_path / "net.safetensors", "safetensors", images=[tmp_path / "none.png"])


def test_real_photographs(shared: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    photographs = shared / "data" / "camvid" / "test"
    result = export_generator(generator, tmp_path / "net.onnx", "onnx", images=[photographs])
    assert result.difference < 1e-4
    assert result.images.count("camvid") == 2


def test_run_exports_with_images_of_its_data_set(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)
    result = run.export("B2A", tmp_path / "net.safetensors", "safetensors")
    assert result.images.startswith(str(dataset / "testB"))
    for folder in dataset.iterdir():
        for file in folder.iterdir():
            file.unlink()
    assert "synthetic smooth images" in run.export("A2B", tmp_path / "net.safetensors", "safetensors").images


def test_a_run_exports_without_warnings_of_torch(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1)
    run.export("A2B", tmp_path / "horse.pt2", "torch")  # a warning is an error in tests


def test_the_command(command: Any, generator: LoadedGenerator, tmp_path: Path) -> None:
    make_dataset(tmp_path / "images")
    model = tmp_path / "A2B.safetensors"
    write_generator(model, generator.network, direction="A2B", recipe=generator.recipe, step=7)
    out = tmp_path / "net.onnx"
    code, output, error = command(
        "export", model, "--format", "onnx", "--out", out, "--images", tmp_path / "images" / "testA"
    )
    assert (code, error) == (0, "")
    assert "verified with onnxruntime: at most " in output
    assert str(tmp_path / "images" / "testA") in output
    code, _, error = command("export", model, "--format=onnx", "--out", out, "--direction=B2A")
    assert code == 2
    assert "translates A2B, not B2A" in error
    code, _, error = command("export", tmp_path / "none", "--format=torch", "--out", tmp_path / "x")
    assert code == 2
    assert "no such file" in error
    assert command("export", model, "--format=coreml", "--out", out)[0] == 2
