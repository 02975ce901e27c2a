"""Tensor files with false headers: every value is checked before use, and memory is allocated only for plausible sizes."""

import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.small import TINY
from safetensors.torch import load, save

from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.files import tensors as tensor_files
from gantoolkit.files.tensors import read_header, read_shapes, read_tensors, write_tensors
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.inference import Translator
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.runs.folder import RunFolder
from gantoolkit.runs.generator_files import load_generator, save_generators
from gantoolkit.training.building import build_trainer

ErrorMessage = Callable[..., str]


def make_file(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def make_header(**changes: Any) -> dict[str, Any]:
    """The header of a file with one tensor, with changes."""
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


HEADERS = {
    "empty": b"",
    "three bytes": b"\x01\0\0",
    "no header": struct.pack("<Q", 0),
    "a header of no bytes": make_file(b""),
    "an endless header": make_file(make_header(), length=2**63),
    "a header beyond the file": make_file(make_header(), length=10_000),
    "a header of 200 MB": make_file(make_header(), length=200_000_000),
    "a truncated header": make_file(make_header(), length=20),
    "not JSON": make_file(b"{'a': 1}"),
    "not text": make_file(b"{\xff\xfe}"),
    "a list": make_file(b"[]"),
    "deep dictionaries": make_file(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "deep lists": make_file(b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "metadata of another type": make_file({"__metadata__": {"header": {"a": 1}}, **make_header()}),
    "metadata is a list": make_file({"__metadata__": [], **make_header()}),
    "beyond the file": make_file(make_header(data_offsets=[0, 17])),
    "far beyond the file": make_file(make_header(shape=[2**40], data_offsets=[0, 2**42])),
    "negative": make_file(make_header(data_offsets=[-16, 0])),
    "backwards": make_file(make_header(data_offsets=[16, 0])),
    "fewer bytes than the shape needs": make_file(make_header(shape=[5])),
    "more bytes than the shape needs": make_file(make_header(shape=[3])),
    "bytes of no tensor": make_file(make_header(), data=bytes(99)),
    "a shape that overflows": make_file(make_header(shape=[2**32, 2**32, 4])),
    "a negative shape": make_file(make_header(shape=[-4])),
    "a shape of fractions": make_file(make_header(shape=[4.5])),
    "no shape": make_file({"a": {"dtype": "F32", "data_offsets": [0, 16]}}),
    "an unknown type": make_file(make_header(dtype="F33")),
    "a type with a newline": make_file(make_header(dtype="F\n33")),
    "a long type": make_file(make_header(dtype="x" * 100_000)),
    "overlapping": make_file({**make_header(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}),
    "the same bytes": make_file({**make_header(), "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "a gap": make_file(
        {**make_header(), "b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, data=bytes(24)
    ),
    "a duplicate name": make_file(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    ),
    "a number for a tensor": make_file({"a": 1}),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_false_headers_are_rejected(kind: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(HEADERS[kind])
    for reader in (read_header, read_shapes, read_tensors, load_generator, Translator.load, read_weights):
        assert "net.safetensors: " in error_message(reader, path)


def test_dtypes_that_torch_may_not_support(error_message: ErrorMessage, tmp_path: Path) -> None:
    for dtype, size in (("F8_E8M0", 16), ("F4", 32), ("F6_E2M3", 16), ("BOOL", 16), ("C64", 2)):
        path = tmp_path / "net.safetensors"
        path.write_bytes(
            make_file({"__metadata__": {"header": "{}", "sha256": ""}, **make_header(dtype=dtype, shape=[size])})
        )
        error_message(read_tensors, path)


def test_pipes_devices_and_folders(error_message: ErrorMessage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "nothing"):
        for reader in (read_header, read_shapes, read_tensors, load_generator):
            assert f"{path}: " in error_message(reader, path)


# Headers of gantoolkit with a correct checksum


def write_file(path: Path, text: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a tensor file with any header and a correct checksum, which an attacker can compute too."""
    tensors = {"a": torch.zeros(2)} if tensors is None else tensors
    path.write_bytes(save(tensors, {"header": text, "sha256": tensor_files._checksum(tensors, text)}))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"text"',
        "{",
        "{'a': 1}",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 100_000,
        "NaN",
        '{"format": "gantoolkit generator 1"' + " " * 1_000_000,
    ],
    ids=range(12),
)
def test_header_that_is_not_a_dictionary(text: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    path = write_file(tmp_path / "net.safetensors", text)
    assert "net.safetensors: is not a gantoolkit file, or damaged" in error_message(read_header, path)
    assert "net.safetensors: is not a gantoolkit file, or damaged" in error_message(load_generator, path)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The header and the tensors of a small generator file."""
    recipe = cyclegan().swap(TINY).resolve()
    folder = tmp_path_factory.mktemp("generators")
    save_generators(folder, build_trainer(recipe, torch.device("cpu")).system, recipe, 3)
    return read_header(folder / "A2B.safetensors"), load((folder / "A2B.safetensors").read_bytes())


def forge(path: Path, genuine: tuple[dict[str, Any], dict[str, torch.Tensor]], **changes: Any) -> Path:
    header = {key: value for key, value in {**genuine[0], **changes}.items() if value is not ...}
    return write_file(path, json.dumps(header), genuine[1])


def test_genuine_file_is_loaded(genuine, tmp_path: Path) -> None:
    assert load_generator(forge(tmp_path / "net.safetensors", genuine)).step == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": ["gantoolkit generator 1"]}, "is not a generator file but"),
        ({"format": {}}, "is not a generator file but"),
        ({"format": "x" * 100_000}, "is not a generator file but"),
        ({"format": "a\nb\x1b[31m"}, "is not a generator file but 'a b\\x1b[31m'"),
        ({"format": ...}, "is not a generator file but 'None'"),
        ({"direction": ["A2B"]}, "'direction' in its header is ['A2B'], but has to be a string"),
        ({"direction": {}}, "'direction' in its header is {}"),
        ({"direction": ...}, "'direction' in its header is missing"),
        ({"direction": "A2C"}, "its direction is 'A2C', but its recipe has only A2B, B2A"),
        ({"direction": "__class__"}, "its direction is '__class__'"),
        ({"recipe": ...}, "'recipe' in its header is missing"),
        ({"recipe": 1.5}, "'recipe' in its header is 1.5, but has to be a string"),
        ({"recipe": {"system": "cyclegan"}}, "'recipe' in its header is"),
        ({"recipe": "/etc/passwd"}, "is not TOML"),
        ({"recipe": ""}, "has neither recipe"),
        ({"recipe": 'system = "os:system"'}, "no 'os:system'"),
        ({"recipe": "a" * 10_000_000}, "more than 262,144 characters"),
        ({"step": "3"}, "'step' in its header is '3', but has to be an integer"),
        ({"step": True}, "'step' in its header is True"),
        ({"step": ...}, "'step' in its header is missing"),
    ],
    ids=range(20),
)
def test_header_values_of_wrong_types(
    changes: dict[str, Any], words: str, genuine, error_message: ErrorMessage, tmp_path: Path
) -> None:
    message = error_message(load_generator, forge(tmp_path / "net.safetensors", genuine, **changes))
    assert words in message
    assert "net.safetensors: " in message


def change_recipe(genuine, **fields: Any) -> str:
    return (
        Recipe.from_toml(genuine[0]["recipe"])
        .swap({key.replace("__", "."): value for key, value in fields.items()})
        .to_toml()
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"generator__width": 10**9}, "its networks are too large"),
        ({"generator__width": 10**5}, "its weights do not fit its recipe ('layers.1.weight' is"),
        ({"generator__width": 5}, "its weights do not fit its recipe"),
        ({"generator__blocks": 10**9}, "more than 20,000 modules"),
        ({"generator__blocks": 2}, "its weights do not fit its recipe"),
        ({"discriminator__width": 10**9}, "its networks are too large"),
        ({"discriminator__width": 20_000}, "GB of networks, far more than"),
        ({"discriminator__layers": 10**9}, "more than 20,000 tensors"),
        ({"generator__width": 2**62}, "net.safetensors: |too large"),
        ({"generator": {"name": "unet", "depth": 4}}, "its weights do not fit its recipe"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_recipe_with_excessive_networks(
    fields, words: str, genuine, error_message: ErrorMessage, tmp_path: Path
) -> None:
    path = forge(tmp_path / "net.safetensors", genuine, recipe=change_recipe(genuine, **fields))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = error_message(load_generator, path)
    assert any(word in message for word in words.split("|")), message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "half a gigabyte was allocated"


def test_tensors_that_do_not_fit_the_recipe(genuine, error_message: ErrorMessage, tmp_path: Path) -> None:
    header, tensors = genuine
    first = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    cases = {
        "an extra tensor": {**tensors, "more": torch.zeros(1)},
        "a missing tensor": {name: tensor for name, tensor in tensors.items() if name != first},
        "another shape": {**tensors, first: tensors[first].flatten()},
        "another type": {**tensors, first: tensors[first].to(torch.int32)},
        "complex": {**tensors, first: tensors[first].to(torch.complex64)},
        "none": {},
    }
    for case in cases.values():
        path = write_file(tmp_path / "net.safetensors", json.dumps(header), case)
        assert "its weights do not fit its recipe" in error_message(load_generator, path)


def test_wrong_checksum(genuine, error_message: ErrorMessage, tmp_path: Path) -> None:
    path = forge(tmp_path / "net.safetensors", genuine)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "its content does not match its checksum" in error_message(load_generator, path)


def test_segmenter_header_values_of_wrong_types(error_message: ErrorMessage, tmp_path: Path) -> None:
    valid = {
        "format": "gantoolkit segmenter 1",
        "palette": {"name": "x", "classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]], "ignored": []},
        "architecture": "fpn",
        "backbone": "resnet10t",
        "side": 32,
    }
    for key, invalid in (
        ("palette", ...),
        ("palette", []),
        ("palette", {"name": "x"}),
        ("palette", {**valid["palette"], "classes": 3}),
        ("palette", {**valid["palette"], "colors": [[0, 0, 0]]}),
        ("palette", {**valid["palette"], "colors": ["red", "blue"]}),
        ("architecture", ["fpn"]),
        ("architecture", ...),
        ("backbone", {}),
        ("backbone", "x" * 5000),
        ("side", "32"),
        ("side", -1),
    ):
        header = {name: value for name, value in {**valid, key: invalid}.items() if value is not ...}
        path = write_file(tmp_path / "segmenter.safetensors", json.dumps(header))
        assert "segmenter" in error_message(load_segmenter, str(path))


def test_command_line_prints_one_sentence(genuine, command, tmp_path: Path) -> None:
    path = forge(tmp_path / "net.safetensors", genuine, recipe=change_recipe(genuine, generator__width=10**9))
    (tmp_path / "false.safetensors").write_bytes(HEADERS["an endless header"])
    (tmp_path / "horse.png").touch()
    for file in (path, tmp_path / "false.safetensors"):
        code, _, error = command("translate", file, tmp_path / "horse.png", "--out", tmp_path / "out")
        assert code == 2
        assert error.count("\n") == 1
        assert "Traceback" not in error


# Checkpoints in a run folder


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": ...},
        {"recipe": 3},
        {"progress": ...},
        {"progress": []},
        {"progress": {}},
        {"progress": {"precision": 3}},
        {"progress": {"step": -1}},
        {"progress": {"step": "3"}},
        {"progress": {"step": 1.5}},
        {"progress": {"precision": "fp7"}},
        {"progress": {"convolution": "fast"}},
        {"progress": {"seconds": "long"}},
        {"progress": {"bad_files": [1]}},
        {"progress": {"since_row": [1]}},
        {"progress": {"since_row": {"G": 1}}},
        {"progress": {"scheduler": 3}},
        {"progress": {"best_step": "x"}},
    ],
    ids=str,
)
def test_checkpoint_with_wrong_types_is_named_and_skipped(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = cyclegan().swap(TINY).resolve()
    run = RunFolder(tmp_path / "run")
    progress = {
        "precision": "fp32",
        "convolution": "direct",
        "step": 3,
        "seconds": 1.5,
        "skipped_steps": 0,
        "bad_files": {},
        "flat_images": 0,
        "best_step": None,
        "best_score": None,
        "since_row": {"G/cycle_A": [1.0, 2]},
        "since_epoch": {},
        "scheduler": {},
    }
    header = {"format": "gantoolkit checkpoint 3", "recipe": recipe.to_toml(), "progress": progress}
    run.checkpoints.mkdir(parents=True)
    path = run.checkpoints / "step-00000003.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, header)
    assert run.newest_checkpoint(recipe) is not None
    for key, value in changes.items():
        header[key] = {**progress, **value} if isinstance(value, dict) and value else value
    write_tensors(path, {"a": torch.zeros(1)}, {key: value for key, value in header.items() if value is not ...})
    with pytest.warns(UserWarning, match=r"step-00000003\.safetensors: is damaged: "):
        assert run.newest_checkpoint(recipe) is None


@pytest.mark.parametrize("kind", [["gantoolkit checkpoint 3"], 3, None, {"a": 1}])
def test_checkpoint_of_another_format(kind: Any, error_message: ErrorMessage, tmp_path: Path) -> None:
    recipe = cyclegan().swap(TINY).resolve()
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    write_tensors(run.checkpoints / "step-00000003.safetensors", {"a": torch.zeros(1)}, {"format": kind})
    assert "this gantoolkit resumes a" in error_message(run.newest_checkpoint, recipe)
