"""Untrusted pickles: none of their code runs, whichever function or command reads them."""

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

from gantoolkit.blocks.features import create_backbone
from gantoolkit.blocks.metrics.palette import find_palette
from gantoolkit.blocks.metrics.segmenter import load_segmenter
from gantoolkit.files.untrusted_weights import read_weights
from gantoolkit.inference import Translator
from gantoolkit.recipes import cyclegan
from gantoolkit.runs.folder import RunFolder
from gantoolkit.runs.generator_files import load_generator

ErrorMessage = Callable[..., str]
CANARY = "GANTOOLKIT_CANARY"


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Detect code that has run: payloads create a file in the working folder or set an environment variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CANARY, raising=False)
    yield
    assert not (tmp_path / "canary").exists(), "untrusted code has run"
    assert CANARY not in os.environ, "untrusted code has run"


class Call:
    """An object that is pickled as a function call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class CallWithState:
    """An object that is pickled as a function call with a state to set on its result."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments, self.state


SET_CANARY = f"__import__('os').environ['{CANARY}'] = 'x'"

PAYLOADS: dict[str, Any] = {
    "os.system": Call(os.system, "touch canary"),
    "getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
    "subprocess": Call(subprocess.Popen, ["touch", "canary"]),
    "exec": Call(builtins.exec, SET_CANARY),
    "eval": Call(
        builtins.eval,
        SET_CANARY.replace(" = 'x'", "").replace("environ[", "environ.setdefault(").rstrip("]") + ", 'x')",
    ),
    "compile": Call(builtins.compile, SET_CANARY, "file", "exec"),
    "open": Call(builtins.open, "canary", "w"),
    "import": Call(importlib.import_module, "antigravity"),
    "runpy": Call(runpy.run_path, "evil.py"),
    "a nested pickle": Call(pickle.loads, pickle.dumps(Call(os.system, "touch canary"))),
    "torch.load": Call(torch.load, "other.pth"),
    "torch.hub": Call(torch.hub.load, "untrusted/evil", "evil"),
    "state of a module": CallWithState(
        torch.nn.Linear, (1, 1), {"_modules": {}, "forward": Call(os.system, "touch canary")}
    ),
    "state of a dictionary": CallWithState(OrderedDict, (), {"x": Call(os.system, "touch canary")}),
    "state of a tensor": CallWithState(torch.Tensor, (), Call(os.system, "touch canary")),
    "a whole network": torch.nn.Sequential(torch.nn.Linear(1, 1)),
    "an array of objects": np.array([Call(os.system, "touch canary")], dtype=object),
    "a dictionary key": {("a", 1): Call(os.system, "touch canary")},
    "map": Call(map, os.system, ["touch canary"]),
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
    "items of an object": b"cos\nenviron\n(S'GANTOOLKIT_CANARY'\nS'x'\nu.",
    "an item of an object": b"cos\nenviron\nS'GANTOOLKIT_CANARY'\nS'x'\ns.",
    "a persistent id": b"S'x'\nQ.",
    "a persistent id of a function": b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI1\ntQ.",
    "a persistent id, protocol 0": b"Ptouch canary\n.",
    "endless bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "endless text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "an endless frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "an endless integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "an integer of negative length": b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
    "a missing memo": b"\x80\x02h\x05.",
    "an empty stack": b"\x80\x02R.",
    "a hundred thousand lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a hundred thousand marks": b"\x80\x02" + b"(" * 100_000 + b".",
    "an unknown protocol": b"\x80\x63N.",
    "no STOP": b"\x80\x02N",
}


def in_zip(program: bytes) -> bytes:
    """A `torch.save` file with `program` in place of its pickle."""
    original, new = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(2)}, original)
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(new, "w") as target:
        for name in source.namelist():
            target.writestr(name, program if name.endswith("data.pkl") else source.read(name))
    return new.getvalue()


def in_legacy(program: bytes) -> bytes:
    """A file in the format of torch before 2020, a sequence of pickles, with `program` in place of the saved object."""
    original = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, original, _use_new_zipfile_serialization=False)
    original.seek(0)
    for _ in range(3):
        for _ in pickletools.genops(original):
            pass
    start = original.tell()
    for _ in pickletools.genops(original):
        pass
    content = original.getvalue()
    return content[:start] + program + content[original.tell() :]


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "zip": in_zip,
    "legacy": in_legacy,
    "bare": bytes,
    "legacy's magic number": lambda program: program + in_legacy(b"N."),
}


def dump(payload: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({"weight": payload, "a": 1}, protocol)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", PAYLOADS)
def test_payload_does_not_run(kind: str, form: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    for protocol in (0, 2, 4):
        (tmp_path / "net.pth").write_bytes(FORMATS[form](dump(PAYLOADS[kind], protocol)))
        assert "net.pth: " in error_message(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", OPCODES)
def test_program_does_not_run(kind: str, form: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(FORMATS[form](OPCODES[kind]))
    assert "net.pth: " in error_message(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "kind", ["os.system", "exec", "a whole network", "an array of objects", "state of a dictionary"]
)
def test_payload_beside_good_tensors_is_rejected(
    kind: str, legacy: bool, error_message: ErrorMessage, tmp_path: Path
) -> None:
    content = {"weight": torch.zeros(3), "extra": PAYLOADS[kind]}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    message = error_message(read_weights, tmp_path / "net.pth")
    assert "could run untrusted code. In the project that wrote it, save only the weights" in message


def test_payloads_run_when_unpickled() -> None:
    """The other tests would prove nothing with payloads that never run."""
    for kind in ("os.system", "exec", "eval", "an array of objects", "state of a dictionary"):
        pickle.loads(dump(PAYLOADS[kind]))
        assert Path("canary").exists() or CANARY in os.environ
        Path("canary").unlink(missing_ok=True)
        os.environ.pop(CANARY, None)


def test_file_names_do_not_matter(error_message: ErrorMessage, tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.pt", "net.bin", "net"):
        (tmp_path / name).write_bytes(in_zip(dump(PAYLOADS["os.system"])))
        error_message(read_weights, tmp_path / name)
    save_file({"a": torch.ones(2)}, tmp_path / "tensors.safetensors")
    shutil.move(tmp_path / "tensors.safetensors", tmp_path / "tensors.pth")
    assert read_weights(tmp_path / "tensors.pth")["a"].tolist() == [1, 1]


# Files that are not weights, or too large


def zip_archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def storage(count: int, legacy: bool) -> bytes:
    """A file whose only tensor claims a storage of `count` numbers."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(77)}, stream, _use_new_zipfile_serialization=False)
    if legacy:
        return stream.getvalue().replace(b"K\x4d", b"\x8a\x08" + struct.pack("<q", count))
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(77)}, stream)
    with zipfile.ZipFile(stream) as file:
        members = {name: file.read(name) for name in file.namelist()}
    return zip_archive(
        {name: content.replace(b"K\x4d", b"\x8a\x08" + struct.pack("<q", count)) for name, content in members.items()},
        0,
    )


def torch_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for name, content in (("pickle", dump(PAYLOADS["os.system"])), ("storages", b""), ("tensors", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            zip_archive({"archive/data.pkl": bytes(200_000_000), "archive/version": b"3\n"}),
            "unpacks to more than 2 times",
        ),
        (zip_archive({"archive/data.pkl": b"N.", "archive/version": b"3\n"}), "net.pth: "),
        (zip_archive({"a.txt": b"words"}), "is damaged, or not a weight file"),
        (torch_tar(), "net.pth: "),
        *[(storage(count, legacy), "net.pth: ") for count in (10**6, 2**40, 2**62, -1) for legacy in (False, True)],
        (b"", "is damaged, or not a weight file"),
        (b"<html><body>404</body></html>", "is a web page, not weights"),
        (bytes(100_000), "is damaged, or not a weight file"),
        (b"\x80\x02}q\0h\0X\x05\0\0\0modelh\0s.", "net.pth: "),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "file",
)
def test_files_that_are_not_weight_files(
    content: bytes, words: str, error_message: ErrorMessage, tmp_path: Path
) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    assert words in error_message(read_weights, tmp_path / "net.pth")


def test_dictionary_that_contains_itself(error_message: ErrorMessage, tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    for legacy in (False, True):
        torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
        assert "contains a dictionary with model, not named tensors" in error_message(
            read_weights, tmp_path / "net.pth"
        )


@pytest.mark.parametrize("form", FORMATS)
def test_key_that_takes_forever_to_hash(form: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    nested: tuple[Any, ...] = ()
    for _ in range(60):
        nested = (nested, nested)
    key = pickle.dumps(nested, 2).removeprefix(b"\x80\x02").removesuffix(b".")
    (tmp_path / "net.pth").write_bytes(FORMATS[form](b"\x80\x02}" + key + b"K\x01s."))
    assert "net.pth: contains tuples nested" in error_message(read_weights, tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(1).expand(10**9, 10**6), "is larger than its data; save it with .contiguous()"),
        (torch.zeros(1).expand(4), "is larger than its data"),
        (torch.eye(3).to_sparse(), "is not a plain tensor"),
        (torch.empty(10**9, 10**6, device="meta"), "is not a plain tensor"),
    ],
    ids=["huge", "expanded", "sparse", "meta"],
)
def test_tensors_without_their_own_data(
    tensor: torch.Tensor, words: str, error_message: ErrorMessage, tmp_path: Path
) -> None:
    torch.save({"first": tensor}, tmp_path / "net.pth")
    message = error_message(read_weights, tmp_path / "net.pth")
    assert words in message
    assert "'first'" in message


def test_pipes_devices_and_folders(error_message: ErrorMessage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path, words in (
        (tmp_path / "pipe.pth", "is a pipe or a device, not a weight file"),
        (Path("/dev/zero"), "is a pipe or a device, not a weight file"),
        (tmp_path, "is a folder, not a weight file"),
        (tmp_path / "nothing.pth", "no such file"),
    ):
        assert words in error_message(read_weights, path)


# Every function and command that reads weights


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A generator's tensors with a payload beside them."""
    path = tmp_path / "evil.pth"
    torch.save({"model.1.weight": torch.zeros(4, 3, 7, 7), "extra": PAYLOADS["os.system"]}, path)
    return path


def test_import_command(evil: Path, command, tmp_path: Path) -> None:
    code, _, error = command("import", "official", evil, "--out", tmp_path / "new.safetensors")
    assert code == 2
    assert "could run untrusted code" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new.safetensors").exists()


def test_translate_command(evil: Path, command, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "images")
    code, _, error = command("translate", evil, root / "testA", "--out", tmp_path / "out")
    assert code == 2
    assert error.count("\n") == 1


def test_generators_segmenters_and_features(evil: Path, error_message: ErrorMessage) -> None:
    copy = evil.with_suffix(".safetensors")
    shutil.copy(evil, copy)
    palette = find_palette("cityscapes")
    for path in (evil, copy):
        assert path.name in error_message(load_generator, path)
        assert path.name in error_message(Translator.load, path)
        assert path.name in error_message(load_segmenter, str(path))
        assert path.name in error_message(create_backbone, "resnet10t", f"file:{path}")
        message = error_message(
            load_segmenter, "torchvision:lraspp_mobilenet_v3_large", palette, weights=f"file:{path}"
        )
        assert path.name in message


def test_hostile_checkpoint_is_named_and_skipped(evil: Path, tmp_path: Path) -> None:
    recipe = cyclegan().swap(TINY).resolve()
    run = RunFolder(tmp_path / "run")
    run.create(recipe, tmp_path)
    run.checkpoints.mkdir()
    shutil.copy(evil, run.checkpoints / "step-00000009.safetensors")
    os.mkfifo(run.checkpoints / "step-00000010.safetensors")
    with pytest.warns(UserWarning, match=r"step-000000\d\d\.safetensors: ") as warnings:
        assert run.newest_checkpoint(recipe) is None
    assert len(warnings) == 2
