"""Files that hold no PyTorch weights, recognized from their first bytes or the names in an archive, to say what they are."""

import re
import zipfile
from pathlib import Path

__all__ = ["describe_foreign_file"]

_START = 1 << 16
"""The number of bytes that are examined at the start of a file."""

_SIGNATURES = (
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file itself; download it with: git lfs pull"),
    (rb"\s*<(!doctype html|html)", "a web page, not weights; download the file itself"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, which Keras and TensorFlow write"),
    (rb"model_checkpoint_path:", "the list of a TensorFlow checkpoint's files"),
    (rb"....TFL3", "a TensorFlow Lite model"),
    (rb"[\x03\x04]\x00\x00\x00\x01\x00\x00\x00", "a file of Lua Torch; convert it with a reader of .t7 files"),
    (rb"\x08[\x01-\x20]\x12.[ -~]", "an ONNX model, whose operators have no layers to import"),
    (
        rb"\x80.*?(dnnlib|torch_utils\.persistence)",
        "a pickled StyleGAN, which generates images from noise and translates none",
    ),
)
"""Regular expressions for the first bytes, and what a file is that matches."""

_ARCHIVES = (
    (
        r"(.*/)?constants\.pkl",
        "a TorchScript program; save its weights: torch.save(torch.jit.load(FILE).state_dict(), ...)",
    ),
    (r"(.*/)?(serialized_exported_program\.json|models/model\.json)", "a program of torch.export, not weights"),
    (r"model\.weights\.h5", "a Keras model"),
    (r"[^/]*\.npy", "an archive of NumPy arrays"),
)
"""Regular expressions for the name of a file in a zip archive, and what the archive is."""

_TENSORFLOW_NAME = re.compile(r".*\.data-\d{5}-of-\d{5}|saved_model\.pb")
_TENSORFLOW_INDEX = bytes.fromhex("57fb808b247547db")
"""The last bytes of a TensorFlow checkpoint's `.index` file."""


def describe_foreign_file(path: Path) -> str:
    """What a file is that is neither safetensors nor from `torch.save`, as a phrase with an article; empty if unknown.

    Raises:
        OSError: When the file cannot be read.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
        return next((text for pattern, text in _ARCHIVES if any(re.fullmatch(pattern, name) for name in names)), "")
    with path.open("rb") as file:
        start = file.read(_START)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_TENSORFLOW_INDEX)))
        end = file.read()
    if end == _TENSORFLOW_INDEX or _TENSORFLOW_NAME.fullmatch(path.name):
        return "a part of a TensorFlow checkpoint or model"
    return next((text for pattern, text in _SIGNATURES if re.match(pattern, start, re.DOTALL | re.IGNORECASE)), "")
