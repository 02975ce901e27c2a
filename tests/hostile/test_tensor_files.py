"""Files of tensors with lying headers: nothing is believed before it is checked, nothing allocated before it is compared."""

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
from gantoolkit.files.tensors import read_header, read_shapes, read_tensors, write_tensors
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.inference import Translator
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.runs.folder import RunFolder
from gantoolkit.runs.generator_files import load_generator, save_generators
from gantoolkit.training import tensorfile
from gantoolkit.training.building import build_trainer

Refused = Callable[..., str]


def framed(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes: Any) -> dict[str, Any]:
    """A header of one right tensor, with changes."""
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


LIES = {
    "empty": b"",
    "three bytes": b"\x01\0\0",
    "no header": struct.pack("<Q", 0),
    "a header of no bytes": framed(b""),
    "a header without end": framed(one(), length=2**63),
    "a header beyond the file": framed(one(), length=10_000),
    "a header of 200 MB": framed(one(), length=200_000_000),
    "a header that ends too soon": framed(one(), length=20),
    "no JSON": framed(b"{'a': 1}"),
    "no text": framed(b"{\xff\xfe}"),
    "a list": framed(b"[]"),
    "deep": framed(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "deep lists": framed(b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "metadata of another type": framed({"__metadata__": {"header": {"a": 1}}, **one()}),
    "metadata is a list": framed({"__metadata__": [], **one()}),
    "beyond the file": framed(one(data_offsets=[0, 17])),
    "far beyond the file": framed(one(shape=[2**40], data_offsets=[0, 2**42])),
    "negative": framed(one(data_offsets=[-16, 0])),
    "backwards": framed(one(data_offsets=[16, 0])),
    "fewer bytes than the shape needs": framed(one(shape=[5])),
    "more bytes than the shape needs": framed(one(shape=[3])),
    "bytes that belong to nothing": framed(one(), data=bytes(99)),
    "a shape that overflows": framed(one(shape=[2**32, 2**32, 4])),
    "a negative shape": framed(one(shape=[-4])),
    "a shape of fractions": framed(one(shape=[4.5])),
    "no shape": framed({"a": {"dtype": "F32", "data_offsets": [0, 16]}}),
    "an unknown type": framed(one(dtype="F33")),
    "a type with a line break": framed(one(dtype="F\n33")),
    "a long type": framed(one(dtype="x" * 100_000)),
    "overlapping": framed({**one(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}),
    "the same bytes": framed({**one(), "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "a gap": framed({**one(), "b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, data=bytes(24)),
    "one name twice": framed(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    ),
    "a number for a tensor": framed({"a": 1}),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_about_where_tensors_lie(lie: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(LIES[lie])
    for reader in (read_header, read_shapes, read_tensors, load_generator, Translator.load, read_weights):
        assert "net.safetensors: " in refused(reader, path)


def test_a_type_that_torch_may_not_have(refused: Refused, tmp_path: Path) -> None:
    for kind, size in (("F8_E8M0", 16), ("F4", 32), ("F6_E2M3", 16), ("BOOL", 16), ("C64", 2)):
        path = tmp_path / "net.safetensors"
        path.write_bytes(framed({"__metadata__": {"header": "{}", "sha256": ""}, **one(dtype=kind, shape=[size])}))
        refused(read_tensors, path)


def test_pipes_devices_and_folders(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "nothing"):
        for reader in (read_header, read_shapes, read_tensors, load_generator):
            assert f"{path}: " in refused(reader, path)


# Our own header, with the right checksum


def sealed(path: Path, text: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A file whose checksum is right, as whoever made it can see to; its header is any text."""
    held = {"a": torch.zeros(2)} if tensors is None else tensors
    path.write_bytes(save(held, {"header": text, "sha256": tensorfile._checksum(held, text)}))
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
def test_a_header_that_is_no_table(text: str, refused: Refused, tmp_path: Path) -> None:
    path = sealed(tmp_path / "net.safetensors", text)
    assert "net.safetensors: is no file of gantoolkit, or damaged" in refused(read_header, path)
    assert "net.safetensors: is no file of gantoolkit, or damaged" in refused(load_generator, path)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The header and the tensors of a small generator's file."""
    recipe = cyclegan().swap(TINY).resolve()
    folder = tmp_path_factory.mktemp("generators")
    save_generators(folder, build_trainer(recipe, torch.device("cpu")).system, recipe, 3)
    return read_header(folder / "A2B.safetensors"), load((folder / "A2B.safetensors").read_bytes())


def forged(path: Path, genuine: tuple[dict[str, Any], dict[str, torch.Tensor]], **changes: Any) -> Path:
    header = {key: value for key, value in {**genuine[0], **changes}.items() if value is not ...}
    return sealed(path, json.dumps(header), genuine[1])


def test_what_is_not_forged_is_loaded(genuine, tmp_path: Path) -> None:
    assert load_generator(forged(tmp_path / "net.safetensors", genuine)).step == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": ["gantoolkit generator 1"]}, "is no generator's file but"),
        ({"format": {}}, "is no generator's file but"),
        ({"format": "x" * 100_000}, "is no generator's file but"),
        ({"format": "a\nb\x1b[31m"}, "is no generator's file but 'a b\\x1b[31m'"),
        ({"format": ...}, "is no generator's file but 'None'"),
        ({"direction": ["A2B"]}, "'direction' in its header is ['A2B'], where a text is needed"),
        ({"direction": {}}, "'direction' in its header is {}"),
        ({"direction": ...}, "'direction' in its header is missing"),
        ({"direction": "A2C"}, "says that it translates 'A2C', but its recipe knows A2B, B2A only"),
        ({"direction": "__class__"}, "says that it translates '__class__'"),
        ({"recipe": ...}, "'recipe' in its header is missing"),
        ({"recipe": 1.5}, "'recipe' in its header is 1.5, where a text is needed"),
        ({"recipe": {"system": "cyclegan"}}, "'recipe' in its header is"),
        ({"recipe": "/etc/passwd"}, "is no TOML"),
        ({"recipe": ""}, "says neither recipe"),
        ({"recipe": 'system = "os:system"'}, "no 'os:system'"),
        ({"recipe": "a" * 10_000_000}, "more than 262,144 characters"),
        ({"step": "3"}, "'step' in its header is '3', where an integer is needed"),
        ({"step": True}, "'step' in its header is True"),
        ({"step": ...}, "'step' in its header is missing"),
    ],
    ids=range(20),
)
def test_a_header_of_other_types(
    changes: dict[str, Any], words: str, genuine, refused: Refused, tmp_path: Path
) -> None:
    sentence = refused(load_generator, forged(tmp_path / "net.safetensors", genuine, **changes))
    assert words in sentence
    assert "net.safetensors: " in sentence


def changed(genuine, **fields: Any) -> str:
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
        ({"discriminator__width": 20_000}, "other networks of"),
        ({"discriminator__layers": 10**9}, "more than 20,000 tensors"),
        ({"generator__width": 2**62}, "net.safetensors: |too large"),
        ({"generator": {"name": "unet", "depth": 4}}, "its weights do not fit its recipe"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_recipe_that_asks_for_the_whole_machine(
    fields, words: str, genuine, refused: Refused, tmp_path: Path
) -> None:
    path = forged(tmp_path / "net.safetensors", genuine, recipe=changed(genuine, **fields))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = refused(load_generator, path)
    assert any(word in sentence for word in words.split("|")), sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "half a gigabyte was allocated"


def test_tensors_that_are_others(genuine, refused: Refused, tmp_path: Path) -> None:
    header, tensors = genuine
    first = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    cases = {
        "one more": {**tensors, "more": torch.zeros(1)},
        "one less": {name: tensor for name, tensor in tensors.items() if name != first},
        "another shape": {**tensors, first: tensors[first].flatten()},
        "another type": {**tensors, first: tensors[first].to(torch.int32)},
        "complex": {**tensors, first: tensors[first].to(torch.complex64)},
        "none": {},
    }
    for held in cases.values():
        path = sealed(tmp_path / "net.safetensors", json.dumps(header), held)
        assert "its weights do not fit its recipe" in refused(load_generator, path)


def test_a_wrong_checksum(genuine, refused: Refused, tmp_path: Path) -> None:
    path = forged(tmp_path / "net.safetensors", genuine)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "its checksum does not agree with its content" in refused(load_generator, path)


def test_a_segmenters_header_of_other_types(refused: Refused, tmp_path: Path) -> None:
    good = {
        "format": "gantoolkit segmenter 1",
        "palette": {"name": "x", "classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]], "ignored": []},
        "architecture": "fpn",
        "backbone": "resnet10t",
        "side": 32,
    }
    for key, wrong in (
        ("palette", ...),
        ("palette", []),
        ("palette", {"name": "x"}),
        ("palette", {**good["palette"], "classes": 3}),
        ("palette", {**good["palette"], "colors": [[0, 0, 0]]}),
        ("palette", {**good["palette"], "colors": ["red", "blue"]}),
        ("architecture", ["fpn"]),
        ("architecture", ...),
        ("backbone", {}),
        ("backbone", "x" * 5000),
        ("side", "32"),
        ("side", -1),
    ):
        header = {name: value for name, value in {**good, key: wrong}.items() if value is not ...}
        path = sealed(tmp_path / "segmenter.safetensors", json.dumps(header))
        assert "segmenter" in refused(load_segmenter, str(path))


def test_the_command_line_says_it_in_one_sentence(genuine, command, tmp_path: Path) -> None:
    path = forged(tmp_path / "net.safetensors", genuine, recipe=changed(genuine, generator__width=10**9))
    (tmp_path / "lie.safetensors").write_bytes(LIES["a header without end"])
    (tmp_path / "horse.png").touch()
    for file in (path, tmp_path / "lie.safetensors"):
        code, _, complaint = command("translate", file, tmp_path / "horse.png", "--out", tmp_path / "out")
        assert code == 2
        assert complaint.count("\n") == 1
        assert "Traceback" not in complaint


# Checkpoints in a run's folder


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
        {"progress": {"seconds": "long"}},
        {"progress": {"bad_files": [1]}},
        {"progress": {"since_row": [1]}},
        {"progress": {"since_row": {"G": 1}}},
        {"progress": {"scheduler": 3}},
        {"progress": {"best_step": "x"}},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_types_is_named_and_passed_over(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = cyclegan().swap(TINY).resolve()
    run = RunFolder(tmp_path / "run")
    progress = {
        "precision": "fp32",
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
    header = {"format": "gantoolkit checkpoint 2", "recipe": recipe.to_toml(), "progress": progress}
    run.checkpoints.mkdir(parents=True)
    path = run.checkpoints / "step-00000003.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, header)
    assert run.newest_checkpoint(recipe) is not None
    for key, value in changes.items():
        header[key] = {**progress, **value} if isinstance(value, dict) and value else value
    write_tensors(path, {"a": torch.zeros(1)}, {key: value for key, value in header.items() if value is not ...})
    with pytest.warns(UserWarning, match=r"step-00000003\.safetensors: is damaged: "):
        assert run.newest_checkpoint(recipe) is None


@pytest.mark.parametrize("kind", [["gantoolkit checkpoint 2"], 3, None, {"a": 1}])
def test_a_checkpoint_of_another_format(kind: Any, refused: Refused, tmp_path: Path) -> None:
    recipe = cyclegan().swap(TINY).resolve()
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    write_tensors(run.checkpoints / "step-00000003.safetensors", {"a": torch.zeros(1)}, {"format": kind})
    assert "this gantoolkit continues a" in refused(run.newest_checkpoint, recipe)
