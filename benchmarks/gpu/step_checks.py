"""Steps on a CUDA device: precision, graphs, waiting, memory."""

import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.gpu.findings import Findings, Options, largest
from benchmarks.gpu.subjects import CUDA, SMALL, build_on_cuda, fixed_flags, lively_recipe, random_images
from gantoolkit.cost.memory_meter import MemoryMeter
from gantoolkit.cost.step_cost import count_step
from gantoolkit.plugins import recipes as registry
from gantoolkit.recipes import bigan, cogan, cyclegan, feature_gan, pix2pix, simgan
from gantoolkit.runtime.precision import Precision, backend_flags
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.training.capture import CapturedStep

__all__ = ["check_capture", "check_memory", "check_precision", "check_recipes"]

PRECISION_TOLERANCE: dict[Precision, float] = {"fp32": 1e-5, "tf32": 4e-3, "bf16": 3e-2, "fp16": 4e-3}
"""Largest relative error of the losses of a step; as in docs/performance.md."""
CAPTURE_TOLERANCE = {"float64": 1e-6, "bf16": 1e-3}
"""Largest relative difference between the losses of replayed and of plain steps; the learning rate of a graph is float32."""
MEMORY_TOLERANCE = 0.1
"""Largest relative difference between measured and predicted memory in float32. In bfloat16 it is only recorded: predictions
use the plain norms, which take more."""


def check_precision(findings: Findings, options: Options) -> None:
    """A step of the paper's networks in each precision, against float64 on the same device."""
    recipe = cyclegan(identity_weight=5.0).swap({"initializer.std": 0.1, **(SMALL if options.quick else {})})
    with fixed_flags("fp32"):
        exact = build_on_cuda(recipe, double=True)
        expected = _floats(exact.step(random_images(recipe, 0, torch.float64)).losses)
    del exact
    for precision, tolerance in PRECISION_TOLERANCE.items():
        trainer = build_on_cuda(recipe, {"training.precision": precision})
        with fixed_flags(precision):
            result = trainer.step(random_images(recipe, 0))
        findings.judge(result.skipped is None, f"{precision}: the step was skipped")
        losses = _floats(result.losses)
        findings.compare(precision, _difference(losses, expected), tolerance)


def check_capture(findings: Findings, options: Options) -> None:
    """Replayed steps equal plain ones: in float64, and in bfloat16 with deterministic algorithms."""
    for name in CAPTURE_TOLERANCE:
        recipe = lively_recipe().swap({"training.precision": "bf16" if name == "bf16" else "fp32"})
        double = name == "float64"
        with isolated_random_state(CUDA, deterministic=True), fixed_flags("fp32"):
            plain, captured = (build_on_cuda(recipe, double=double) for _ in range(2))
            step, worst = CapturedStep(captured), 0.0
            for number in range(6 if options.quick else 14):
                batch = random_images(recipe, number, torch.float64 if double else torch.float32)
                losses = []
                for take in (plain.step, step):
                    seed_everything(number)  # for dropout
                    losses.append(_floats(take(batch, number).losses))
                worst = largest(worst, _difference(losses[1], losses[0]))
        findings.require(step.problem == "", f"{name}: {step.problem}")
        findings.compare(name, worst, CAPTURE_TOLERANCE[name])


def check_recipes(findings: Findings, options: Options) -> None:
    """Every system takes captured steps, and no step waits for the device, with or without a graph."""
    sizes = {"data.load_size": 64, "data.crop_size": 64}
    features = {"name": "timm", "backbone": "vgg16", "weights": "none"}
    distance = {"name": "features", "features": features, "layers": ["relu2_2"], "side": 64}
    recipes = {
        "cyclegan": cyclegan(identity_weight=5.0).swap(sizes),
        "pix2pix": pix2pix(),
        "simgan": simgan().swap(sizes),
        "bigan": bigan().swap(sizes),
        "cogan": cogan(),
        "feature_gan": feature_gan().swap({**sizes, "self_regularization_loss": distance}),
    }
    plugins = {entry.name for entry in registry.entries()} & {"cut", "fastcut"}
    recipes |= {name: registry.get(name)().swap(sizes) for name in sorted(plugins)}
    for name, recipe in recipes.items():
        recipe = recipe.swap({"training.precision": "bf16", "training.batch_size": 2})
        if options.quick:
            recipe = recipe.swap({} if name in ("pix2pix", "cogan") else SMALL)
        with warnings.catch_warnings(), fixed_flags("bf16"):
            warnings.simplefilter("ignore")
            trainer = build_on_cuda(recipe)
            step = CapturedStep(trainer, warn=False)
            batches = [random_images(recipe, number) for number in range(2)]
            results = [step(batches[number % 2], number) for number in range(6)]
            findings.judge(results[-1].skipped is None, f"{name}: the step was skipped")
            findings.note(name, step.problem or "captured")
            findings.require(not step.problem, f"{name} is not captured: {step.problem}")
            try:
                with _no_waiting():
                    trainer.step(batches[0], 6)
                    step(batches[1], 7)
            except RuntimeError as error:
                traceback.print_exc()
                findings.problems.append(f"{name}: {error}")
        torch.cuda.empty_cache()


def check_memory(findings: Findings, options: Options) -> None:
    """The memory of a step against its prediction, after cuDNN has chosen its algorithms."""
    for precision, batch in (("fp32", 1), ("bf16", 1), ("bf16", 8)):
        recipe = cyclegan(identity_weight=5.0).swap(
            {"training.precision": precision, "training.batch_size": batch, **(SMALL if options.quick else {})}
        )
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        meter = MemoryMeter(CUDA)
        trainer, images = build_on_cuda(recipe), random_images(recipe, 0)
        with backend_flags(trainer.precision, try_algorithms=True):
            trainer.step(images, 0)
            torch.cuda.synchronize()
            first = (meter.read() or 0) - before
            meter.restart()
            trainer.step(images, 1)
            torch.cuda.synchronize()
        peak, predicted = (meter.read() or 0) - before, count_step(recipe.resolve()).peak_bytes
        name = f"{precision} batch {batch}"
        findings.note(f"{name} GB", [round(size / 1e9, 3) for size in (predicted, peak, first)])
        if precision == "fp32":
            findings.compare(f"{name} deviation", abs(peak / predicted - 1), MEMORY_TOLERANCE)
        del trainer, images


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Make PyTorch raise a RuntimeError for an operation that waits for the device."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a prototype feature
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _floats(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in losses.items()}


def _difference(values: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """The largest relative difference, or NaN if a value is NaN."""
    return largest(*(abs(values[name] - value) / max(abs(value), 1e-12) for name, value in expected.items()))
