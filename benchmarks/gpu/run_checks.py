"""Recorded and resumed runs, and translations on a CUDA device."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import replay
from benchmarks.data import make_photographs
from benchmarks.gpu.findings import Findings, Options, largest
from benchmarks.gpu.subjects import CUDA, lively_recipe
from benchmarks.inference import open_translator, write_one
from gantoolkit.errors import TrainingError
from gantoolkit.run import Run

__all__ = ["check_golden", "check_resume", "check_translation"]

TRANSLATION_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}
"""Largest difference between replayed and plain translations, whose values are in [−1, 1]: one rounding in that precision."""


def check_golden(findings: Findings, options: Options) -> None:
    """Records of the official implementation, replayed in float64, with plain layers and with the fused kernels."""
    assert options.golden is not None, "--golden is required"
    records = sorted(options.golden.glob("*.json"))
    findings.require(bool(records), f"{options.golden} contains no records")
    for path in records[: 1 if options.quick else None]:
        for batched in (True, False):
            for memory_format in (torch.contiguous_format, torch.channels_last):
                name = f"{path.stem} {'batched' if batched else 'separate'} {str(memory_format).removeprefix('torch.')}"
                result = replay.replay(path.with_suffix(""), batched=batched, device=CUDA, memory_format=memory_format)
                print(f"{name}: {result.difference:.2e} at {result.where}", flush=True)
                for value, difference in result.sensitive.items():
                    print(f"{name}: {value} differs by {difference:.2e}, which rounding explains", flush=True)
                findings.compare(name, result.difference, replay.TOLERANCE)


def check_translation(findings: Findings, options: Options) -> None:
    """Translations by a replayed graph equal plain ones; each image gives its own result."""
    side = 64 if options.quick else 256
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "A2B.safetensors"
        write_one(path)
        for precision, tolerance in TRANSLATION_TOLERANCE.items():
            captured, plain = (open_translator(path, variant, CUDA) for variant in (precision, f"{precision} plain"))
            differences = []
            for _ in range(6):
                images = (torch.rand(1, 3, side, side, generator=generator) * 2 - 1).to(CUDA)
                results = [translator.translate_tensor(images).double() for translator in (captured, plain)]
                differences.append(float((results[0] - results[1]).abs().max()))
            findings.require(not captured.capture_problem, f"{precision}: {captured.capture_problem}")
            findings.compare(precision, largest(*differences), tolerance)


def check_resume(findings: Findings, options: Options) -> None:
    """A run that was stopped continues to the same bits, with and without graphs."""
    with tempfile.TemporaryDirectory() as folder:
        data = make_photographs(Path(folder) / "images", 10, (40, 36))
        for precision, captured in (("fp32", False), ("bf16", False), ("bf16", True)):
            name = f"{precision}{' captured' if captured else ''}"
            recipe = lively_recipe(64 if not options.quick else 16).swap(
                {
                    "training.precision": precision,
                    "training.capture": captured,
                    "training.deterministic": True,
                    "training.epochs": 2,
                }
            )
            whole, parts = (Run.start(recipe, data, Path(folder) / name / part) for part in ("whole", "parts"))
            try:
                whole.train(device="cuda")
                parts.train(device="cuda", stop_at=9)
                parts.train(device="cuda")
            except TrainingError as error:  # losses or weights are not finite
                findings.judge(False, f"{name}: {error}")
                continue
            states = [_newest_tensors(run) for run in (whole, parts)]
            different = [key for key in states[0] if not torch.equal(states[0][key], states[1][key])]
            findings.note(name, f"{len(different)} of {len(states[0])} tensors differ")
            findings.judge(not different, f"{name}: {', '.join(different[:5])} and others differ")


def _newest_tensors(run: Run) -> dict[str, Tensor]:
    checkpoint = run.folder.newest_checkpoint(run.recipe)
    assert checkpoint is not None, f"{run.path} contains no checkpoint"
    return dict(checkpoint.tensors)
