"""Coverage-guided fuzzing of everything that reads a stranger's file: recipes, files of weights, images.

    python -m benchmarks.fuzz image --seconds 1200 --corpus DIR --out image.json
    python -m benchmarks.fuzz --all --seconds 1200 --out benchmarks/results/fuzz.json

Needs atheris (pip install atheris), which brings libFuzzer. The seeds are real files, made here. A finding is any exception but
a GantoolkitError, an error's message that is not one line, a warning that nobody asked for, more memory than `MEMORY_MB`, more
than `TIMEOUT` seconds, or the end of the process; each finding is kept beside the corpus with its traceback, once for each
place in the code, and the fuzzing goes on. The exit code is 1 if there was one.
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
"""Stands in for the library's own bound while images are tried, so that each takes milliseconds."""

LONGEST_MESSAGE = 3000

INSTRUMENTED = ["gantoolkit", "PIL", "safetensors", "tomllib"]
"""Of torch, the reader of pickles is instrumented as well; of what is written in C nothing can be."""

Try = Callable[[Path], object]
Mutate = Callable[[bytes, random.Random, Callable[[bytes, int], bytes]], bytes]


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        suffix: Of the file that is read.
        longest: Bytes that a file may have.
        make_seeds: Writes real files into a folder.
        tries: Imports the readers; each of what it returns reads a file in one of the ways that a user can.
        mutate: Changes a file without breaking its frame: lengths and checksums are made right again.
        words: What libFuzzer may put into a file.
    """

    suffix: str
    longest: int
    make_seeds: Callable[[Path], None]
    tries: Callable[[], list[Try]]
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


def try_recipes() -> list[Try]:
    from gantoolkit.recipes import Recipe

    def from_text(path: Path) -> None:
        # Bytes that are no UTF-8 are for the file's reader below.
        Recipe.from_toml(path.read_bytes().decode(errors="replace")).resolve()

    def from_file(path: Path) -> None:
        resolved = Recipe.from_toml(path).resolve()
        again = Recipe.from_toml(resolved.to_toml()).resolve()
        assert again.to_toml() == resolved.to_toml(), "a recipe is not given back"

    return [from_text, from_file]


def mutate_recipe(data: bytes, chance: random.Random, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """A field with another value, left out, or moved; TOML again."""
    import tomli_w

    try:
        mapping = tomllib.loads(data.decode())
        mutate_table(mapping, chance)
        return tomli_w.dumps(mapping).encode()
    except (ValueError, TypeError, RecursionError):
        return blindly(data, len(data) + 64)


def mutate_table(table: dict[str, Any], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 4))):
        holder: Any = table
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(holder[key], dict | list) and chance.random() < 0.8:
                holder = holder[key]
                continue
            match chance.randrange(4):
                case 0 if isinstance(holder, dict):
                    del holder[key]
                case 1 if isinstance(holder, dict):
                    holder[chance.choice(WORDS)] = holder[key]
                case _:
                    holder[key] = chance.choice(NASTY)
            break


WORDS = (
    *("recipe", "system", "cyclegan", "pix2pix", "simgan", "gatys", "generator", "discriminator", "unet", "resnet", "name"),
    *("base", "optimizer", "scheduler", "initializer", "metric", "data", "training", "parameters", "made_by", "none", "inf"),
    *("blocks", "width", "depth", "crop_size", "load_size", "epochs", "[[", "]]", "{", "}", "=", "true", "0x", "1979-05-27"),
)  # fmt: skip


# Files of weights


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
    held = {
        "state": state,
        "wrapped": {"state_dict": few, "epoch": 3, "args": [1.5, "x", (1, 2), {3}, None, b"bytes", 2**70]},
        "parameter": {"a": torch.nn.Parameter(torch.zeros(2, 3)), "half": torch.zeros(3, dtype=torch.bfloat16)},
        "views": {"a": torch.arange(12.0).reshape(3, 4).t(), "b": torch.zeros(1).expand(4)},
        "sparse": {"a": torch.eye(3).to_sparse(), "complex": torch.zeros(2, dtype=torch.complex64)},
    }
    for name, value in held.items():
        torch.save(value, folder / f"{name}.pth")
        torch.save(value, folder / f"{name}-legacy.pth", _use_new_zipfile_serialization=False)


def try_checkpoints() -> list[Try]:
    from gantoolkit.files.tensors import read_header, read_tensors
    from gantoolkit.files.untrusted_weights import read_weights
    from gantoolkit.runs.folder import RunFolder
    from gantoolkit.runs.generator_files import load_generator

    def weights(path: Path) -> None:
        for tensor in read_weights(path).values():
            tensor.sum()  # whoever takes them looks at all of them

    def checkpoint(path: Path) -> None:
        run = RunFolder(path.parent)
        header = read_header(path)
        try:
            from gantoolkit.recipes import Recipe

            recipe = Recipe.from_toml(header["recipe"], where="run").resolve()
        except Exception:
            return  # the run's own recipe is whole; what is tried is a checkpoint in its folder
        run.list_checkpoints = lambda: [path]  # type: ignore[method-assign]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged one is named in a warning
            run.newest_checkpoint(recipe)

    return [
        read_header,
        read_tensors,
        load_generator,
        weights,
        checkpoint,
    ]


def mutate_checkpoint(data: bytes, chance: random.Random, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """A change of the JSON header, of our header in it, or of the pickle in a zip; the frame is made whole again."""
    if data[:2] == b"PK":
        return mutate_zip(data, chance, blindly)
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        tensors = data[8 + size :]
        match chance.randrange(5):
            case 0:
                mutate_table(header, chance)
            case 1:
                tensors = blindly(tensors, len(tensors) + 8)
            case 2:
                inner = json.loads(header["__metadata__"]["header"])
                mutate_table(inner, chance)
                header["__metadata__"]["header"] = json.dumps(inner)
            case _:
                inner = json.loads(header["__metadata__"]["header"])
                inner["recipe"] = mutate_recipe(inner["recipe"].encode(), chance, blindly).decode(errors="replace")
                header["__metadata__"]["header"] = json.dumps(inner)
        if chance.random() < 0.9:
            seal(header, tensors)
        text = json.dumps(header).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return blindly(data, len(data) + 64)
    return len(text).to_bytes(8, "little") + text + tensors


def seal(header: dict[str, Any], tensors: bytes) -> None:
    """Put the right checksum into a header, as whoever made the file could."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from gantoolkit.files import tensors as tensor_files

    text = json.dumps(header).encode()
    with contextlib.suppress(SafetensorError, KeyError, ValueError, RuntimeError, TypeError, AttributeError):
        held = load(len(text).to_bytes(8, "little") + text + tensors)
        header["__metadata__"]["sha256"] = tensor_files._checksum(held, header["__metadata__"]["header"])


def mutate_zip(data: bytes, chance: random.Random, blindly: Callable[[bytes, int], bytes]) -> bytes:
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            held = {info.filename: old.read(info) for info in old.infolist()}
        picks = [name for name in held if name.endswith("data.pkl")] * 3 + list(held)
        name = chance.choice(picks)
        held[name] = blindly(held[name], len(held[name]) + 64)
        way = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(made, "w", way) as new, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, content in held.items():
                new.writestr(name, content)
    except Exception:  # zipfile, too, fails in many ways at damaged archives
        return blindly(data, len(data) + 64)
    return made.getvalue()


# Images


def make_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    colors = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    rgba = Image.fromarray(colors)
    forms = {
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
    profile = Path(__file__).read_bytes()[:200]  # no color profile is read; it has to be passed over
    for suffix, modes in forms.items():
        for mode in modes:
            image = rgba.convert("L").convert(mode) if mode in ("I", "F", "I;16") else rgba.convert("RGB").convert(mode)
            name = f"{mode.replace(';', '_')}.{suffix}"
            with contextlib.suppress(OSError, ValueError):  # what Pillow cannot write in that form
                image.save(folder / name)
            if suffix in ("png", "jpg", "webp", "tiff") and mode in ("RGB", "P"):
                image.save(folder / f"exif-{name}", exif=exif, icc_profile=profile)
    frames = [rgba, rgba.rotate(180)]
    for suffix in ("gif", "png", "webp", "tiff"):
        frames[0].save(folder / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        rgba.convert("RGB").save(folder / f"{way}.tiff", compression=way)
    rgba.convert("RGB").save(folder / "progressive.jpg", progressive=True)
    clear = rgba.convert("P")
    clear.save(folder / "clear.png", transparency=3)
    clear.save(folder / "clear.gif", transparency=3)


def try_images() -> list[Try]:
    from gantoolkit.data import images

    images.MAX_PIXELS = MAX_PIXELS

    def pixels(path: Path, channels: int) -> None:
        image = images.read_image(path, channels)
        assert image.mode == {1: "L", 3: "RGB"}[channels], f"mode {image.mode}"
        assert min(image.size) > 0, "no pixel"
        size = images.read_size(path)
        assert sorted(image.size) == sorted(size), f"{image.size} is announced as {size}"

    return [
        images.read_size,
        lambda path: pixels(path, 3),
        lambda path: pixels(path, 1),
        lambda path: images.read_image(images.ImageFile(path, "left")),
    ]


def mutate_image(data: bytes, chance: random.Random, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """A chunk of a PNG with its checksum made right; other forms have none."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return blindly(data, len(data) + 64)
    chunks: list[tuple[bytes, bytes]] = []
    place = 8
    while place + 8 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    if not chunks:
        return blindly(data, len(data) + 64)
    number = chance.randrange(len(chunks))
    kind, content = chunks[number]
    match chance.randrange(4):
        case 0:
            chunks.insert(chance.randrange(len(chunks)), chunks[number])
        case 1 if kind in (b"IDAT", b"fdAT"):
            with contextlib.suppress(zlib.error):
                chunks[number] = (kind, zlib.compress(blindly(zlib.decompress(content), len(content) + 64)))
        case 2:
            kinds = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"acTL", b"fcTL", b"PLTE", b"gAMA", b"pHYs")
            chunks[number] = (chance.choice(kinds), content)
        case _:
            chunks[number] = (kind, blindly(content, len(content) + 16))
    made = data[:8]
    for kind, content in chunks:
        made += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return made


TARGETS = {
    "recipe": Target(".toml", 20_000, make_recipes, try_recipes, mutate_recipe, WORDS),
    "checkpoint": Target(".safetensors", 60_000, make_checkpoints, try_checkpoints, mutate_checkpoint),
    "image": Target(".img", 20_000, make_images, try_images, mutate_image),
}


# The process that fuzzes


def fuzz_here(name: str, folder: Path, flags: list[str]) -> None:
    """Try files until libFuzzer ends the process."""
    atheris = load_atheris()
    target = TARGETS[name]
    for module in [module for module in sys.modules if module.partition(".")[0] in INSTRUMENTED]:
        del sys.modules[module]  # to be imported anew
    import torch
    from torch._weights_only_unpickler import Unpickler

    torch.set_num_threads(1)
    Unpickler.load = atheris.instrument_func(Unpickler.load)
    memory = Path("/dev/shm")  # where there is none, the disk will do
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    path = scratch / f"file{target.suffix}"
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        errors = importlib.import_module("gantoolkit.errors")
        tries = target.tries()
        for seed in sorted((folder / "corpus").iterdir())[:40]:  # what is imported when it is needed
            path.write_bytes(seed.read_bytes())
            for read in tries:
                with contextlib.suppress(Exception):
                    read(path)
    warnings.simplefilter("error")
    seen = {kept.stem for kept in (folder / "findings").iterdir()}

    def keep(finding: str, data: bytes) -> None:
        finding = re.sub(r"[^\w.-]+", "-", finding)[:150]
        if finding not in seen:
            seen.add(finding)
            (folder / "findings" / f"{finding}{target.suffix}").write_bytes(data)
            (folder / "findings" / f"{finding}.txt").write_text(traceback.format_exc(limit=-20, chain=False))

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        for read in tries:
            try:
                read(path)
            except errors.GantoolkitError as error:
                message = str(error)
                if not message.isprintable() or len(message) > LONGEST_MESSAGE:
                    keep(f"message-{type(error).__name__}-{_place(error)}", data)
            except Exception as error:
                keep(f"{type(error).__name__}-{_place(error)}", data)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.4:
            return atheris.Mutate(data, longest)
        return target.mutate(data, chance, atheris.Mutate)[:longest]

    atheris.Setup([sys.argv[0], *flags], attempt, custom_mutator=mutate)
    atheris.Fuzz()


def _place(error: BaseException) -> str:
    """Where in the library an exception came through last."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}gantoolkit{os.sep}" in frame.filename
    ]
    return f"{Path(frames[-1].filename).name}-{frames[-1].name}" if frames else "outside"


def load_atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        raise SystemExit("fuzzing needs atheris, which brings libFuzzer: pip install atheris") from None


# The process that watches it


def fuzz(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Fuzz one kind of file, with a new process whenever one ends; the figures.

    Args:
        folder: Holds `corpus/`, from which a later run goes on, and `findings/`.
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
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 1:
        flags = [
            f"-max_total_time={math.ceil(left)}",
            f"-timeout={TIMEOUT}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={target.longest}",
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
            done = subprocess.run(command, stdout=stream, stderr=stream, check=False, env=environment)
        processes += 1
        executed, covered = _read_log(log)
        executions, coverage = executions + executed, max(coverage, covered)
        if done.returncode and time.monotonic() - began < 15 * processes:
            break  # it does not even begin; the log says why
    kept = sorted({path.stem for path in findings.iterdir()})
    return {
        "executions": executions,
        "seconds": round(time.monotonic() - began, 1),
        "coverage": coverage,
        "corpus": len(list(corpus.iterdir())),
        "processes": processes,
        "findings": kept,
    }


def _read_log(log: Path) -> tuple[int, int]:
    """Executions and coverage, by the last line that speaks of them."""
    executed = covered = 0
    with log.open(errors="replace") as lines:
        for line in lines:
            if found := re.match(r"#(\d+)\s.*cov: (\d+)", line):
                executed, covered = int(found[1]), max(covered, int(found[2]))
            elif found := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
                executed = int(found[1])
    return executed, covered


def main() -> int:
    """Fuzz one kind of file or all of them, one after the other, and write the figures."""
    if "--here" in sys.argv:
        _, name, _, folder, *flags = sys.argv
        fuzz_here(name, Path(folder), flags)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=list(TARGETS))
    parser.add_argument("--all", action="store_true", help="every kind of file, one after the other")
    parser.add_argument("--seconds", type=float, default=60, help="for each kind of file")
    parser.add_argument("--corpus", type=Path, help="folder for corpora and findings; a later run goes on from there")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.all == bool(arguments.target):
        parser.error(f"name one of {', '.join(TARGETS)}, or say --all")
    load_atheris()
    import PIL
    import safetensors
    import torch

    from benchmarks.timing import describe_machine, write_result

    root = arguments.corpus or Path(tempfile.mkdtemp(prefix="gantoolkit-fuzz-"))
    print(f"corpora, logs and findings are kept in {root}", file=sys.stderr)
    names = list(TARGETS) if arguments.all else [arguments.target]
    result = {
        **describe_machine(torch.device("cpu")),
        "pillow": PIL.__version__,
        "safetensors": safetensors.__version__,
        "atheris": importlib.metadata.version("atheris"),
        "targets": {name: fuzz(name, arguments.seconds, root / name) for name in names},
    }
    write_result(result, arguments.out)
    return 1 if any(figures["findings"] for figures in result["targets"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
