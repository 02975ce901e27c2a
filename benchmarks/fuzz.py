"""Coverage-guided fuzzing of all code that reads untrusted files: recipes, weight files, images.

    python -m benchmarks.fuzz image --seconds 1200 --corpus DIR --out image.json
    python -m benchmarks.fuzz --all --seconds 1200 --out benchmarks/results/fuzz.json

Requires atheris (pip install atheris), which includes libFuzzer. The seeds are valid files, written here. Findings are: an
exception other than a GantoolkitError, an error message of more than one line, a warning, memory above `MEMORY_MB`, a time
above `TIMEOUT` seconds, and the end of the process. Each finding is saved beside the corpus with its traceback, once per code
location, and fuzzing continues. The exit code is 1 if there are findings.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TARGETS", "main"]

MEMORY_MB = 3072
TIMEOUT = 30
MAX_PIXELS = 2_000_000
"""Replaces the library's limit while fuzzing images, so that each takes milliseconds."""

LONGEST_MESSAGE = 3000

INSTRUMENTED = ["gantoolkit", "PIL", "safetensors", "tomllib"]
"""The pickle reader of torch is instrumented as well; C code cannot be."""

Reader = Callable[[Path], object]
Mutate = Callable[[bytes, random.Random, Callable[[bytes, int], bytes]], bytes]


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        suffix: File name suffix.
        max_bytes: Maximum size of a file.
        make_seeds: Writes valid files into a folder.
        import_readers: Imports and returns functions that read a file, as users can.
        mutate: Changes a file and corrects its lengths and checksums.
        words: Dictionary for libFuzzer.
    """

    suffix: str
    max_bytes: int
    make_seeds: Callable[[Path], None]
    import_readers: Callable[[], list[Reader]]
    mutate: Mutate
    words: tuple[str, ...] = ()


# Recipes

NASTY: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 10**6, 10**18, 2**63, 2**4000, -(10**30), 0.5, -0.0, 1e308, math.inf, -math.inf, math.nan, True, False),
    *("", "none", "timm", "a\nb", "\x1b[31m", "a:b", "os:system", "python:ResNetGenerator", "file:/dev/zero", "x" * 5000),
    *([], [[]], [1, "a", {}], {}, {"name": "unet"}, {"name": {}}, {"name": "unet", "name ": 1}, {"made_by": 1}, {"": ""}),
)  # fmt: skip


def make_recipes(folder: Path) -> None:
    from gantoolkit.plugins import recipes
    from gantoolkit.recipes import find_recipe, list_recipe_files

    for entry in recipes.entries():
        recipe = recipes.get(entry.name)()
        (folder / f"{entry.name}.toml").write_text(recipe.to_toml())
        (folder / f"{entry.name}-resolved.toml").write_text(recipe.resolve().to_toml())
        (folder / f"{entry.name}-base.toml").write_text(f'recipe = "{entry.name}"\n[generator]\nname = "unet"\n')
    for name in list_recipe_files():
        (folder / f"file-{name.replace('/', '-')}.toml").write_text(find_recipe(name).to_toml())


def import_recipe_readers() -> list[Reader]:
    from gantoolkit.recipes import Recipe

    def from_text(path: Path) -> None:
        # from_file below covers invalid UTF-8.
        Recipe.from_toml(path.read_bytes().decode(errors="replace")).resolve()

    def from_file(path: Path) -> None:
        resolved = Recipe.from_toml(path).resolve()
        reread = Recipe.from_toml(resolved.to_toml()).resolve()
        assert reread.to_toml() == resolved.to_toml(), "the recipe changes when it is written and read"

    return [from_text, from_file]


def mutate_recipe(data: bytes, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Change, remove or move fields, and write TOML again."""
    import tomli_w

    try:
        mapping = tomllib.loads(data.decode())
        mutate_table(mapping, rng)
        return tomli_w.dumps(mapping).encode()
    except (ValueError, TypeError, RecursionError):
        return mutate_bytes(data, len(data) + 64)


def mutate_table(table: dict[str, Any], rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4))):
        container: Any = table
        while True:
            keys = list(container) if isinstance(container, dict) else list(range(len(container)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(container[key], dict | list) and rng.random() < 0.8:
                container = container[key]
                continue
            match rng.randrange(4):
                case 0 if isinstance(container, dict):
                    del container[key]
                case 1 if isinstance(container, dict):
                    container[rng.choice(WORDS)] = container[key]
                case _:
                    container[key] = rng.choice(NASTY)
            break


WORDS = (
    *("recipe", "system", "cyclegan", "pix2pix", "simgan", "gatys", "generator", "discriminator", "unet", "resnet", "name"),
    *("base", "optimizer", "scheduler", "initializer", "metric", "data", "training", "parameters", "made_by", "none", "inf"),
    *("blocks", "width", "depth", "crop_size", "load_size", "epochs", "[[", "]]", "{", "}", "=", "true", "0x", "1979-05-27"),
)  # fmt: skip


# Weight files


def make_checkpoints(folder: Path) -> None:
    import torch

    from gantoolkit.files.tensors import write_tensors
    from gantoolkit.recipes import cyclegan
    from gantoolkit.runs.generator_files import save_generators
    from gantoolkit.training.building import build_trainer

    small = {
        "generator": {"name": "resnet", "width": 1, "blocks": 1},
        "discriminator": {"name": "patchgan", "width": 1, "layers": 1},
        "data.load_size": 16,
        "data.crop_size": 16,
    }
    recipe = cyclegan().swap(small).resolve()
    trainer = build_trainer(recipe, torch.device("cpu"))
    save_generators(folder / "ours", trainer.system, recipe, 3)
    (folder / "ours" / "A2B.safetensors").rename(folder / "generator.safetensors")
    (folder / "ours" / "B2A.safetensors").unlink()
    (folder / "ours").rmdir()
    state = dict(trainer.system.networks["G_AB"].state_dict())
    few = dict(list(state.items())[:4])
    header = {"format": "gantoolkit checkpoint 2", "recipe": recipe.to_toml(), "progress": {"step": 3}}
    write_tensors(folder / "checkpoint.safetensors", few, header)
    contents = {
        "state": state,
        "wrapped": {"state_dict": few, "epoch": 3, "args": [1.5, "x", (1, 2), {3}, None, b"bytes", 2**70]},
        "parameter": {"a": torch.nn.Parameter(torch.zeros(2, 3)), "half": torch.zeros(3, dtype=torch.bfloat16)},
        "views": {"a": torch.arange(12.0).reshape(3, 4).t(), "b": torch.zeros(1).expand(4)},
        "sparse": {"a": torch.eye(3).to_sparse(), "complex": torch.zeros(2, dtype=torch.complex64)},
    }
    for name, value in contents.items():
        torch.save(value, folder / f"{name}.pth")
        torch.save(value, folder / f"{name}-legacy.pth", _use_new_zipfile_serialization=False)


def import_checkpoint_readers() -> list[Reader]:
    from gantoolkit.files.tensors import read_header, read_tensors
    from gantoolkit.files.untrusted_weights import read_weights
    from gantoolkit.runs.folder import RunFolder
    from gantoolkit.runs.generator_files import load_generator

    def weights(path: Path) -> None:
        for tensor in read_weights(path).values():
            tensor.sum()  # reads all values, as users of the tensors do

    def checkpoint(path: Path) -> None:
        run = RunFolder(path.parent)
        header = read_header(path)
        try:
            from gantoolkit.recipes import Recipe

            recipe = Recipe.from_toml(header["recipe"], where="run").resolve()
        except Exception:
            return  # the recipe of a run is valid; this tests checkpoints in its folder
        run.list_checkpoints = lambda: [path]  # type: ignore[method-assign]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged checkpoint causes a warning
            run.newest_checkpoint(recipe)

    return [
        read_header,
        read_tensors,
        load_generator,
        weights,
        checkpoint,
    ]


def mutate_checkpoint(data: bytes, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Change the JSON header, our header inside it, or the pickle in a zip file, and correct the container."""
    if data[:2] == b"PK":
        return mutate_zip(data, rng, mutate_bytes)
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        tensors = data[8 + size :]
        match rng.randrange(5):
            case 0:
                mutate_table(header, rng)
            case 1:
                tensors = mutate_bytes(tensors, len(tensors) + 8)
            case 2:
                inner = json.loads(header["__metadata__"]["header"])
                mutate_table(inner, rng)
                header["__metadata__"]["header"] = json.dumps(inner)
            case _:
                inner = json.loads(header["__metadata__"]["header"])
                inner["recipe"] = mutate_recipe(inner["recipe"].encode(), rng, mutate_bytes).decode(errors="replace")
                header["__metadata__"]["header"] = json.dumps(inner)
        if rng.random() < 0.9:
            seal(header, tensors)
        text = json.dumps(header).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return mutate_bytes(data, len(data) + 64)
    return len(text).to_bytes(8, "little") + text + tensors


def seal(header: dict[str, Any], tensors: bytes) -> None:
    """Write the correct checksum into a header, as an attacker could."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from gantoolkit.files import tensors as tensor_files

    text = json.dumps(header).encode()
    with contextlib.suppress(SafetensorError, KeyError, ValueError, RuntimeError, TypeError, AttributeError):
        loaded = load(len(text).to_bytes(8, "little") + text + tensors)
        header["__metadata__"]["sha256"] = tensor_files._checksum(loaded, header["__metadata__"]["header"])


def mutate_zip(data: bytes, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    stream = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            files = {info.filename: source.read(info) for info in source.infolist()}
        candidates = [name for name in files if name.endswith("data.pkl")] * 3 + list(files)
        name = rng.choice(candidates)
        files[name] = mutate_bytes(files[name], len(files[name]) + 64)
        compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, content in files.items():
                archive.writestr(name, content)
    except Exception:  # zipfile raises many kinds of errors for damaged archives
        return mutate_bytes(data, len(data) + 64)
    return stream.getvalue()


# Images


def make_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    colors = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    rgba = Image.fromarray(colors)
    formats = {
        "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"),
        "jpg": ("L", "RGB", "CMYK"),
        "gif": ("L", "P", "RGB"),
        "bmp": ("1", "L", "P", "RGB", "RGBA"),
        "webp": ("RGB", "RGBA"),
        "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"),
        "ppm": ("1", "L", "RGB", "I", "F"),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "words"
    profile = Path(__file__).read_bytes()[:200]  # color profiles are never parsed
    for suffix, modes in formats.items():
        for mode in modes:
            image = rgba.convert("L").convert(mode) if mode in ("I", "F", "I;16") else rgba.convert("RGB").convert(mode)
            name = f"{mode.replace(';', '_')}.{suffix}"
            with contextlib.suppress(OSError, ValueError):  # modes that Pillow cannot write in this format
                image.save(folder / name)
            if suffix in ("png", "jpg", "webp", "tiff") and mode in ("RGB", "P"):
                image.save(folder / f"exif-{name}", exif=exif, icc_profile=profile)
    frames = [rgba, rgba.rotate(180)]
    for suffix in ("gif", "png", "webp", "tiff"):
        frames[0].save(folder / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    for method in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        rgba.convert("RGB").save(folder / f"{method}.tiff", compression=method)
    rgba.convert("RGB").save(folder / "progressive.jpg", progressive=True)
    transparent = rgba.convert("P")
    transparent.save(folder / "clear.png", transparency=3)
    transparent.save(folder / "clear.gif", transparency=3)


def import_image_readers() -> list[Reader]:
    from gantoolkit.data import images
    from gantoolkit.data import pixels as reading

    images.MAX_PIXELS = MAX_PIXELS

    def pixels(path: Path, channels: int) -> None:
        image = reading.read_image(path, channels)
        assert image.mode == {1: "L", 3: "RGB"}[channels], f"mode {image.mode}"
        assert min(image.size) > 0, "empty image"
        size = images.read_size(path)
        assert sorted(image.size) == sorted(size), f"read_size returns {size} for {image.size}"

    return [
        images.read_size,
        lambda path: pixels(path, 3),
        lambda path: pixels(path, 1),
        lambda path: reading.read_image(images.ImageFile(path, "left")),
    ]


def mutate_image(data: bytes, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Change a chunk of a PNG and correct its checksum; other formats have no checksums."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return mutate_bytes(data, len(data) + 64)
    chunks: list[tuple[bytes, bytes]] = []
    offset = 8
    while offset + 8 <= len(data):
        (size,) = struct.unpack(">I", data[offset : offset + 4])
        chunks.append((data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + size]))
        offset += 12 + size
    if not chunks:
        return mutate_bytes(data, len(data) + 64)
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    match rng.randrange(4):
        case 0:
            chunks.insert(rng.randrange(len(chunks)), chunks[index])
        case 1 if kind in (b"IDAT", b"fdAT"):
            with contextlib.suppress(zlib.error):
                chunks[index] = (kind, zlib.compress(mutate_bytes(zlib.decompress(content), len(content) + 64)))
        case 2:
            kinds = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"acTL", b"fcTL", b"PLTE", b"gAMA", b"pHYs")
            chunks[index] = (rng.choice(kinds), content)
        case _:
            chunks[index] = (kind, mutate_bytes(content, len(content) + 16))
    result = data[:8]
    for kind, content in chunks:
        result += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return result


TARGETS = {
    "recipe": Target(".toml", 20_000, make_recipes, import_recipe_readers, mutate_recipe, WORDS),
    "checkpoint": Target(".safetensors", 60_000, make_checkpoints, import_checkpoint_readers, mutate_checkpoint),
    "image": Target(".img", 20_000, make_images, import_image_readers, mutate_image),
}


# The fuzzing process


def fuzz_here(name: str, folder: Path, flags: list[str]) -> None:
    """Fuzz in this process, until libFuzzer ends it."""
    atheris = load_atheris()
    target = TARGETS[name]
    for module in [module for module in sys.modules if module.partition(".")[0] in INSTRUMENTED]:
        del sys.modules[module]  # to import it again, instrumented
    import torch
    from torch._weights_only_unpickler import Unpickler

    torch.set_num_threads(1)
    Unpickler.load = atheris.instrument_func(Unpickler.load)
    memory = Path("/dev/shm")  # otherwise the disk
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    path = scratch / f"file{target.suffix}"
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        errors = importlib.import_module("gantoolkit.errors")
        readers = target.import_readers()
        for seed in sorted((folder / "corpus").iterdir())[:40]:  # triggers lazy imports
            path.write_bytes(seed.read_bytes())
            for read in readers:
                with contextlib.suppress(Exception):
                    read(path)
    warnings.simplefilter("error")
    known = {path.stem for path in (folder / "findings").iterdir()}

    def save(finding: str, data: bytes) -> None:
        finding = re.sub(r"[^\w.-]+", "-", finding)[:150]
        if finding not in known:
            known.add(finding)
            (folder / "findings" / f"{finding}{target.suffix}").write_bytes(data)
            (folder / "findings" / f"{finding}.txt").write_text(traceback.format_exc(limit=-20, chain=False))

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        for read in readers:
            try:
                read(path)
            except errors.GantoolkitError as error:
                message = str(error)
                if not message.isprintable() or len(message) > LONGEST_MESSAGE:
                    save(f"message-{type(error).__name__}-{_location(error)}", data)
            except Exception as error:
                save(f"{type(error).__name__}-{_location(error)}", data)

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.4:
            return atheris.Mutate(data, max_bytes)
        return target.mutate(data, rng, atheris.Mutate)[:max_bytes]

    atheris.Setup([sys.argv[0], *flags], attempt, custom_mutator=mutate)
    atheris.Fuzz()


def _location(error: BaseException) -> str:
    """The innermost file and function of the library in an exception's traceback."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}gantoolkit{os.sep}" in frame.filename
    ]
    return f"{Path(frames[-1].filename).name}-{frames[-1].name}" if frames else "outside"


def load_atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        raise SystemExit("fuzzing requires atheris, which includes libFuzzer: pip install atheris") from None


# The supervising process


def fuzz(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Fuzz one kind of file, restarting the process whenever it ends; return the statistics.

    Args:
        folder: Contains `corpus/`, which later runs extend, and `findings/`.
    """
    target = TARGETS[name]
    corpus, findings = folder / "corpus", folder / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    for old in findings.iterdir():
        old.unlink()
    target.make_seeds(corpus)
    words = folder / "words"
    words.write_text("".join(f'"{word.replace(chr(34), chr(92) + chr(34))}"\n' for word in target.words))
    executions = coverage = processes = 0
    start = time.monotonic()
    while (remaining := seconds - (time.monotonic() - start)) > 1:
        flags = [
            f"-max_total_time={math.ceil(remaining)}",
            f"-timeout={TIMEOUT}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={target.max_bytes}",
            f"-artifact_prefix={findings}{os.sep}",
            "-print_final_stats=1",
            "-len_control=0",
            *([f"-dict={words}"] if target.words else []),
            str(corpus),
        ]
        command = [sys.executable, "-m", "benchmarks.fuzz", name, "--here", str(folder), *flags]
        log = folder / f"log-{int(time.time())}.txt"
        with log.open("wb") as stream:
            environment = {**os.environ, "GANTOOLKIT_PLUGINS": "0"}
            completed = subprocess.run(command, stdout=stream, stderr=stream, check=False, env=environment)
        processes += 1
        executed, covered = _read_log(log)
        executions, coverage = executions + executed, max(coverage, covered)
        if completed.returncode and time.monotonic() - start < 15 * processes:
            break  # it fails at the start; see the log
    return {
        "executions": executions,
        "seconds": round(time.monotonic() - start, 1),
        "coverage": coverage,
        "corpus": len(list(corpus.iterdir())),
        "processes": processes,
        "findings": sorted({path.stem for path in findings.iterdir()}),
    }


def _read_log(log: Path) -> tuple[int, int]:
    """Read the final numbers of executions and coverage from a log."""
    executed = covered = 0
    with log.open(errors="replace") as lines:
        for line in lines:
            if match := re.match(r"#(\d+)\s.*cov: (\d+)", line):
                executed, covered = int(match[1]), max(covered, int(match[2]))
            elif match := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
                executed = int(match[1])
    return executed, covered


def main() -> int:
    """Fuzz one kind of file or all of them in turn, and write the statistics."""
    if "--here" in sys.argv:
        _, name, _, folder, *flags = sys.argv
        fuzz_here(name, Path(folder), flags)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=list(TARGETS))
    parser.add_argument("--all", action="store_true", help="fuzz every kind of file in turn")
    parser.add_argument("--seconds", type=float, default=60, help="time for each kind of file")
    parser.add_argument("--corpus", type=Path, help="folder for corpora and findings; later runs continue from it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.all == bool(arguments.target):
        parser.error(f"name one of {', '.join(TARGETS)}, or pass --all")
    load_atheris()
    import PIL
    import safetensors
    import torch

    from benchmarks.timing import describe_machine, write_result

    root = arguments.corpus or Path(tempfile.mkdtemp(prefix="gantoolkit-fuzz-"))
    print(f"corpora, logs and findings are in {root}", file=sys.stderr)
    names = list(TARGETS) if arguments.all else [arguments.target]
    result = {
        **describe_machine(torch.device("cpu")),
        "pillow": PIL.__version__,
        "safetensors": safetensors.__version__,
        "atheris": importlib.metadata.version("atheris"),
        "targets": {name: fuzz(name, arguments.seconds, root / name) for name in names},
    }
    write_result(result, arguments.out)
    return 1 if any(target["findings"] for target in result["targets"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
