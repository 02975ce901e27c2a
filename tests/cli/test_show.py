"""`gantoolkit show`, which builds no network, and `gantoolkit.load`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers.small import make_image, make_tiny
from PIL import Image
from safetensors.torch import save_file

import gantoolkit
from gantoolkit.cli import main
from gantoolkit.errors import CheckpointError, DataError
from gantoolkit.files.tensors import write_tensors
from gantoolkit.recipes.building import build_system
from gantoolkit.runs import read_generator_header


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    return gantoolkit.train(
        make_tiny().swap({"data.channels_A": 1, "identity_weight": 0.0}),
        dataset,
        tmp_path / "run",
        device="cpu",
        stop_at=2,
    ).path


class TestShow:
    def test_file(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = run / "generators" / "A2B.safetensors"
        assert main(["show", str(path)]) == 0
        output = capsys.readouterr().out
        assert "direction: A2B" in output
        assert "images: gray, 8-bit; to RGB, 8-bit" in output
        assert "steps: 2" in output
        assert "generator.width = 4  (by default 64)" in output
        recipe = make_tiny().swap({"data.channels_A": 1, "identity_weight": 0.0}).resolve()
        network = build_system(recipe).directions["A2B"]
        assert f"parameters: {sum(tensor.numel() for tensor in network.state_dict().values())}\n" in output

    def test_run_as_json(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["show", str(run), "--json"]) == 0
        files = json.loads(capsys.readouterr().out)
        assert [file["direction"] for file in files] == ["A2B", "B2A"]
        assert files[1]["images"] == "RGB, 8-bit; to gray, 8-bit"
        assert files[0]["differs"]["data.channels_A"] == [1, 3]
        assert files[0]["bytes"] == (run / "generators" / "A2B.safetensors").stat().st_size

    def test_block_that_is_not_installed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = make_tiny().resolve().to_toml().replace('name = "resnet"', 'name = "acme"')
        header = {
            "format": "gantoolkit generator 1",
            "direction": "A2B",
            "recipe": text,
            "step": 5,
            "origin": "net.pth",
        }
        write_tensors(tmp_path / "file.safetensors", {"weight": torch.zeros(2, 3)}, header)
        assert main(["show", str(tmp_path / "file.safetensors")]) == 0
        output = capsys.readouterr().out
        assert "cannot be used here: " in output
        assert "acme" in output
        assert "parameters: 6" in output
        assert "origin: net.pth" in output

    @pytest.mark.parametrize("kind", ["missing", "foreign", "cut", "picture"])
    def test_file_that_is_not_a_generator(
        self, kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "file.safetensors"
        if kind == "foreign":
            save_file({"weight": torch.zeros(1)}, path)
        elif kind == "cut":
            path.write_bytes((run / "generators" / "A2B.safetensors").read_bytes()[:500])
        elif kind == "picture":
            make_image(0).save(path, "PNG")
        assert main(["show", str(path)]) == 2
        errors = capsys.readouterr().err
        assert "file.safetensors" in errors
        assert "Traceback" not in errors

    def test_read_generator_header(self, run: Path) -> None:
        header = read_generator_header(run / "generators" / "B2A.safetensors")
        assert (header.direction, header.step, header.origin) == ("B2A", 2, "")


class TestLoad:
    def test_file_and_run_translate_alike(self, run: Path) -> None:
        image = make_image(3)
        by_file = gantoolkit.load(run / "generators" / "B2A.safetensors", device="cpu")(image)
        by_run = gantoolkit.load(str(run), "B2A", device="cpu", tile=None)(image)
        assert isinstance(by_file, Image.Image)
        assert np.array_equal(np.asarray(by_file), np.asarray(by_run))

    def test_errors(self, run: Path) -> None:
        with pytest.raises(DataError, match="pass --direction A2B or --direction B2A"):
            gantoolkit.load(run)
        with pytest.raises(DataError, match="translates A2B, not B2A"):
            gantoolkit.load(run / "generators" / "A2B.safetensors", "B2A")
        with pytest.raises(CheckpointError, match="no such file"):
            gantoolkit.load(run / "generators" / "C.safetensors")

    def test_importing_the_package_does_not_import_torch(self) -> None:
        code = "import gantoolkit, sys; gantoolkit.load; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
