"""Pickles from strangers: whatever they ask for, nothing of it runs, through any door."""

import builtins
import importlib
import io
import os
import pickle
import pickletools
import runpy
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers.small import TINY, make_dataset
from safetensors.torch import save_file

from gantoolkit.blocks.features import make_backbone
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.inference import Translator
from gantoolkit.recipes import cyclegan
from gantoolkit.runs.folder import RunFolder
from gantoolkit.runs.generator_files import load_generator

Refused = Callable[..., str]
CANARY = "GANTOOLKIT_CANARY"


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What every payload would touch: a file in the folder where the test stands, or a variable of the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CANARY, raising=False)
    yield
    assert not (tmp_path / "canary").exists(), "a stranger's code has run"
    assert CANARY not in os.environ, "a stranger's code has run"


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Built:
    """Pickles as an object whose state is set, as `__setstate__` gets it."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments, self.state


SET = f"__import__('os').environ['{CANARY}'] = 'x'"

PAYLOADS: dict[str, Any] = {
    "os.system": Call(os.system, "touch canary"),
    "getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
    "subprocess": Call(subprocess.Popen, ["touch", "canary"]),
    "exec": Call(builtins.exec, SET),
    "eval": Call(
        builtins.eval, SET.replace(" = 'x'", "").replace("environ[", "environ.setdefault(").rstrip("]") + ", 'x')"
    ),
    "compile": Call(builtins.compile, SET, "file", "exec"),
    "open": Call(builtins.open, "canary", "w"),
    "import": Call(importlib.import_module, "antigravity"),
    "runpy": Call(runpy.run_path, "evil.py"),
    "a pickle in it": Call(pickle.loads, pickle.dumps(Call(os.system, "touch canary"))),
    "torch.load in it": Call(torch.load, "other.pth"),
    "torch.hub": Call(torch.hub.load, "stranger/evil", "evil"),
    "state of a module": Built(torch.nn.Linear, (1, 1), {"_modules": {}, "forward": Call(os.system, "touch canary")}),
    "state of a table": Built(OrderedDict, (), {"x": Call(os.system, "touch canary")}),
    "state of a tensor": Built(torch.Tensor, (), Call(os.system, "touch canary")),
    "a whole network": torch.nn.Sequential(torch.nn.Linear(1, 1)),
    "an array of objects": np.array([Call(os.system, "touch canary")], dtype=object),
    "a key": {("a", 1): Call(os.system, "touch canary")},
    "a lambda's home": Call(map, os.system, ["touch canary"]),
    "a path": Path("canary"),
}

OPCODES = {
    "INST": b"(S'touch canary'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch canary'\no.",
    "REDUCE, protocol 0": b"cos\nsystem\n(S'touch canary'\ntR.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R.",
    "NEWOBJ": b"\x80\x02cos\nsystem\nX\x0c\0\0\0touch canary\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\nX\x0c\0\0\0touch canary\x85}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x0fserialization.os\x93.",
    "a name in torch": b"ctorch._utils\n_import_dotted_name\n(S'os.system'\ntR.",
    "a global and a state": b"cos\nenviron\n(S'GANTOOLKIT_CANARY'\nS'x'\ndb.",
    "items of what is no table": b"cos\nenviron\n(S'GANTOOLKIT_CANARY'\nS'x'\nu.",
    "an item of what is no table": b"cos\nenviron\nS'GANTOOLKIT_CANARY'\nS'x'\ns.",
    "a persistent id": b"S'x'\nQ.",
    "a persistent id of a function": b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI1\ntQ.",
    "a persistent id, protocol 0": b"Ptouch canary\n.",
    "bytes without end": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "text without end": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "a frame without end": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "an integer without end": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "an integer of negative length": b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
    "a memo that is not there": b"\x80\x02h\x05.",
    "nothing on the stack": b"\x80\x02R.",
    "a hundred thousand lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "marks without end": b"\x80\x02" + b"(" * 100_000 + b".",
    "a protocol to come": b"\x80\x63N.",
    "no end": b"\x80\x02N",
}


def in_zip(program: bytes) -> bytes:
    """A file as `torch.save` writes it, with another program in place of the pickle."""
    old, new = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(2)}, old)
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(new, "w") as target:
        for name in source.namelist():
            target.writestr(name, program if name.endswith("data.pkl") else source.read(name))
    return new.getvalue()


def in_legacy(program: bytes) -> bytes:
    """A file as torch wrote it before 2020: pickles in a row, the third one of them what was saved."""
    old = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    old.seek(0)
    for _ in range(3):
        for _ in pickletools.genops(old):
            pass
    start = old.tell()
    for _ in pickletools.genops(old):
        pass
    content = old.getvalue()
    return content[:start] + program + content[old.tell() :]


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "zip": in_zip,
    "legacy": in_legacy,
    "bare": bytes,
    "legacy's magic number": lambda program: program + in_legacy(b"N."),
}


def dumped(payload: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({"weight": payload, "a": 1}, protocol)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", PAYLOADS)
def test_nothing_of_a_payload_runs(kind: str, frame: str, refused: Refused, tmp_path: Path) -> None:
    for protocol in (0, 2, 4):
        (tmp_path / "net.pth").write_bytes(FRAMES[frame](dumped(PAYLOADS[kind], protocol)))
        assert "net.pth: " in refused(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", OPCODES)
def test_nothing_of_a_program_runs(kind: str, frame: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(FRAMES[frame](OPCODES[kind]))
    assert "net.pth: " in refused(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["os.system", "exec", "a whole network", "an array of objects", "state of a table"])
def test_torch_save_itself_hides_nothing_beside_good_tensors(
    kind: str, legacy: bool, refused: Refused, tmp_path: Path
) -> None:
    held = {"weight": torch.zeros(3), "extra": PAYLOADS[kind]}
    torch.save(held, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    sentence = refused(read_weights, tmp_path / "net.pth")
    assert "could run a stranger's code; it is refused. In the project that it comes from, save only" in sentence


def test_the_payloads_are_alive() -> None:
    """They do run where they are let."""
    for kind in ("os.system", "exec", "eval", "an array of objects", "state of a table"):
        pickle.loads(dumped(PAYLOADS[kind]))
        assert Path("canary").exists() or CANARY in os.environ
        Path("canary").unlink(missing_ok=True)
        os.environ.pop(CANARY, None)


def test_the_wrong_name_changes_nothing(refused: Refused, tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.pt", "net.bin", "net"):
        (tmp_path / name).write_bytes(in_zip(dumped(PAYLOADS["os.system"])))
        refused(read_weights, tmp_path / name)
    save_file({"a": torch.ones(2)}, tmp_path / "tensors.safetensors")
    shutil.move(tmp_path / "tensors.safetensors", tmp_path / "tensors.pth")
    assert read_weights(tmp_path / "tensors.pth")["a"].tolist() == [1, 1]


# Files that are no weights, or too much of them


def zipped(members: dict[str, bytes], way: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", way) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def storage(count: int, legacy: bool) -> bytes:
    """A tensor whose storage is said to have `count` numbers."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(77)}, stream, _use_new_zipfile_serialization=False)
    if legacy:
        return stream.getvalue().replace(b"K\x4d", b"\x8a\x08" + struct.pack("<q", count))
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(77)}, stream)
    with zipfile.ZipFile(stream) as file:
        held = {name: file.read(name) for name in file.namelist()}
    return zipped(
        {name: content.replace(b"K\x4d", b"\x8a\x08" + struct.pack("<q", count)) for name, content in held.items()}, 0
    )


def torch_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for name, content in (("pickle", dumped(PAYLOADS["os.system"])), ("storages", b""), ("tensors", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped({"archive/data.pkl": bytes(200_000_000), "archive/version": b"3\n"}), "unpacks to more than 2 times"),
        (zipped({"archive/data.pkl": b"N.", "archive/version": b"3\n"}), "net.pth: "),
        (zipped({"a.txt": b"words"}), "is damaged, or no file of weights"),
        (torch_tar(), "net.pth: "),
        *[(storage(count, legacy), "net.pth: ") for count in (10**6, 2**40, 2**62, -1) for legacy in (False, True)],
        (b"", "is damaged, or no file of weights"),
        (b"<html><body>404</body></html>", "is damaged, or no file of weights"),
        (bytes(100_000), "is damaged, or no file of weights"),
        (b"\x80\x02}q\0h\0X\x05\0\0\0modelh\0s.", "net.pth: "),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "file",
)
def test_what_is_no_file_of_weights(content: bytes, words: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    assert words in refused(read_weights, tmp_path / "net.pth")


def test_a_table_that_holds_itself(refused: Refused, tmp_path: Path) -> None:
    held: dict[str, Any] = {}
    held["model"] = held
    for legacy in (False, True):
        torch.save(held, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
        assert "holds no named tensors but a table with model" in refused(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize("frame", FRAMES)
def test_a_key_that_takes_for_ever_to_hash(frame: str, refused: Refused, tmp_path: Path) -> None:
    nested: tuple[Any, ...] = ()
    for _ in range(60):
        nested = (nested, nested)
    key = pickle.dumps(nested, 2).removeprefix(b"\x80\x02").removesuffix(b".")
    (tmp_path / "net.pth").write_bytes(FRAMES[frame](b"\x80\x02}" + key + b"K\x01s."))
    assert "net.pth: holds tuples" in refused(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(1).expand(10**9, 10**6), "is larger than its data; save it contiguous"),
        (torch.zeros(1).expand(4), "is larger than its data"),
        (torch.eye(3).to_sparse(), "is no plain tensor"),
        (torch.empty(10**9, 10**6, device="meta"), "is no plain tensor"),
    ],
    ids=["huge", "expanded", "sparse", "meta"],
)
def test_tensors_that_are_not_what_they_seem(
    tensor: torch.Tensor, words: str, refused: Refused, tmp_path: Path
) -> None:
    torch.save({"first": tensor}, tmp_path / "net.pth")
    sentence = refused(read_weights, tmp_path / "net.pth")
    assert words in sentence
    assert "'first'" in sentence


def test_pipes_devices_and_folders(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path, words in (
        (tmp_path / "pipe.pth", "is a pipe or a device, not a file of weights"),
        (Path("/dev/zero"), "is a pipe or a device, not a file of weights"),
        (tmp_path, "is a folder, not a file of weights"),
        (tmp_path / "nothing.pth", "no such file"),
    ):
        assert words in refused(read_weights, path)


# Every door


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A good generator's tensors with a payload beside them."""
    path = tmp_path / "evil.pth"
    torch.save({"model.1.weight": torch.zeros(4, 3, 7, 7), "extra": PAYLOADS["os.system"]}, path)
    return path


def test_the_command_that_imports_weights(evil: Path, command, tmp_path: Path) -> None:
    code, _, complaint = command("import", "official", evil, "--out", tmp_path / "new.safetensors")
    assert code == 2
    assert "could run a stranger's code" in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "new.safetensors").exists()


def test_the_command_that_translates(evil: Path, command, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "images")
    code, _, complaint = command("translate", evil, root / "testA", "--out", tmp_path / "out")
    assert code == 2
    assert complaint.count("\n") == 1


def test_generators_segmenters_and_features(evil: Path, refused: Refused) -> None:
    renamed = evil.with_suffix(".safetensors")
    shutil.copy(evil, renamed)
    palette = find_palette("cityscapes")
    for path in (evil, renamed):
        assert path.name in refused(load_generator, path)
        assert path.name in refused(Translator.load, path)
        assert path.name in refused(load_segmenter, str(path))
        assert path.name in refused(make_backbone, "resnet10t", f"file:{path}")
        segmenter = refused(load_segmenter, "torchvision:lraspp_mobilenet_v3_large", palette, weights=f"file:{path}")
        assert path.name in segmenter


def test_a_checkpoint_in_a_runs_folder_is_named_and_passed_over(evil: Path, tmp_path: Path) -> None:
    recipe = cyclegan().swap(TINY).resolve()
    run = RunFolder(tmp_path / "run")
    run.create(recipe, tmp_path)
    run.checkpoints.mkdir()
    shutil.copy(evil, run.checkpoints / "step-00000009.safetensors")
    os.mkfifo(run.checkpoints / "step-00000010.safetensors")
    with pytest.warns(UserWarning, match=r"step-000000\d\d\.safetensors: ") as warned:
        assert run.newest_checkpoint(recipe) is None
    assert len(warned) == 2
