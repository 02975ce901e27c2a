"""A step never waits for its device: on the meta device, operations that would make the host wait on CUDA are refused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from _helpers.small import batch_of
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gantoolkit.recipes import Recipe, bigan, cogan, cyclegan, feature_gan, pix2pix, simgan
from gantoolkit.training import build_trainer

META = torch.device("meta")

SMALL = {"data.crop_size": 32, "data.load_size": 32}
SMALL_BLOCKS = {
    "generator": {"name": "resnet", "width": 4, "blocks": 1},
    "discriminator": {"name": "patchgan", "width": 4, "layers": 1},
}
FEATURES = {"name": "features", "features": {"name": "timm", "weights": "none"}, "side": 48}
RECIPES = {
    "cyclegan": cyclegan(identity_weight=5.0).swap(SMALL, **SMALL_BLOCKS),
    "cyclegan bf16": cyclegan().swap({**SMALL, "training.precision": "bf16"}, **SMALL_BLOCKS),
    "cyclegan ssim": cyclegan(cycle_loss="ssim").swap(SMALL, **SMALL_BLOCKS),
    "cyclegan wgan_gp": cyclegan(adversarial_loss="wgan_gp").swap(SMALL, **SMALL_BLOCKS),
    "cyclegan hinge": cyclegan(adversarial_loss="hinge").swap(SMALL, **SMALL_BLOCKS),
    "pix2pix": pix2pix().swap(SMALL, generator={"name": "unet", "width": 4, "depth": 3}),
    "simgan": simgan().swap(SMALL),
    "bigan": bigan().swap(SMALL),
    "cogan": cogan().swap(SMALL),
    "feature_gan": feature_gan(self_regularization_loss=FEATURES).swap(SMALL, **SMALL_BLOCKS),
}


class RefuseWaits(TorchDispatchMode):
    """Refuse blocking copies between the host and the device, and reads of a value of the device."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "item", "equal", "nonzero"):
            assert not args[0].is_meta, f"{name} reads a value of the device"
        elif name == "_to_copy":
            self._check(args[0].device, kwargs.get("device") or args[0].device, bool(kwargs.get("non_blocking")))
        elif name == "copy_":
            self._check(args[1].device, args[0].device, bool(kwargs.get("non_blocking") or args[2:3] == (True,)))
        return func(*args, **kwargs)

    def _check(self, source: torch.device, target: torch.device, non_blocking: bool) -> None:
        assert non_blocking or source.type == target.type, f"a copy from {source} to {target} waits for the device"


class RefuseNewTensors(TorchFunctionMode):
    """Refuse tensors that are made from Python numbers on the device: that is a blocking copy too."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.get("device")
            assert device is None or torch.device(device).type != "meta", f"{func.__name__} waits for the device"
        return func(*args, **kwargs)


class SkippableOptimizer(torch.optim.Optimizer):
    """A flag on the device makes it skip a step, as for fused optimizers, which do not support the meta device."""

    _step_supports_amp_scaling = True

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.sub_(0.1 * (1 - self.found_inf) * parameter.grad)  # type: ignore[attr-defined]


def take_steps(recipe: Recipe) -> None:
    trainer = build_trainer(recipe.resolve(), META)
    trainer.is_asynchronous = True  # as on CUDA
    for name, optimizer in trainer.optimizers.items():
        trainer.optimizers[name] = SkippableOptimizer(optimizer.param_groups[0]["params"])
    batch = {domain: images.to(META) for domain, images in batch_of(recipe.resolve(), 2).items()}
    trainer.step(batch, 0)  # the first step may cache constants
    with RefuseNewTensors(), RefuseWaits():
        trainer.step(batch, 1)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_step_does_not_wait(recipe: Recipe) -> None:
    take_steps(recipe)


def read_value(value: torch.Tensor) -> None:
    torch.ops.aten._local_scalar_dense(value)


def copy_from_host(value: torch.Tensor) -> None:
    torch.ones(()).to(value.device)


def make_on_device(value: torch.Tensor) -> None:
    torch.tensor(1.0, device=value.device)


@pytest.mark.parametrize(
    ("wait", "message"),
    [
        (read_value, "_local_scalar_dense reads a value of the device"),
        (copy_from_host, "a copy from cpu to meta waits for the device"),
        (make_on_device, "tensor waits for the device"),
    ],
)
def test_what_waits_is_refused(wait: Callable[[torch.Tensor], None], message: str) -> None:
    with pytest.raises(AssertionError, match=message), RefuseNewTensors(), RefuseWaits():
        wait(torch.zeros((), device=META))


def copy_in_every_call(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (images - targets).abs().mean() * torch.ones(()).to(images.device)


def test_a_loss_that_waits_is_noticed() -> None:
    def build() -> Callable[..., torch.Tensor]:
        return copy_in_every_call

    with pytest.raises(AssertionError, match="a copy from cpu to meta waits for the device"):
        take_steps(RECIPES["cyclegan"].swap(cycle_loss=build))
