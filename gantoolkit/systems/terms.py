"""What the systems' objectives are made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gantoolkit.plugins import AdversarialLoss, ObservingDiscriminator, PenalisedLoss, Setting
from gantoolkit.seeds import derive_seed

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Direction = Literal["A2B", "B2A"]

DomainWeight = Weight | tuple[Weight, Weight]
"""A weight for both domains, or one for A and one for B."""


def per_domain(weight: float | tuple[float, float]) -> tuple[float, float]:
    """The weights for A and for B."""
    return weight if isinstance(weight, tuple) else (weight, weight)


@dataclass(frozen=True)
class Pass:
    """One batch of images through one network, by the names of both."""

    output: str
    network: nn.Module
    input: str


def run_passes(passes: Sequence[Pass], images: Mapping[str, Tensor], *, batched: bool = True) -> dict[str, Tensor]:
    """Make every output, in order; an input is one of `images` or an earlier output.

    Passes through one network whose inputs are there go as one batch where that changes nothing but the time it takes.
    It would change batch norm, which sees its batch: where a network has it, the passes are made one by one, in order.
    """
    together = batched and not any(_has_batch_norm(wanted.network) for wanted in passes)
    made: dict[str, Tensor] = {}
    waiting = list(passes)
    while waiting:
        known = {**images, **made}
        first = waiting[0]
        group = [
            wanted
            for wanted in waiting
            if wanted is first
            or (together and wanted.network is first.network and _alike(known.get(wanted.input), known[first.input]))
        ]
        inputs = [known[wanted.input] for wanted in group]
        outputs = first.network(torch.cat(inputs) if len(inputs) > 1 else inputs[0])
        parts = outputs.split([len(batch) for batch in inputs])
        made |= {wanted.output: part for wanted, part in zip(group, parts, strict=True)}
        waiting = [wanted for wanted in waiting if wanted not in group]
    return {wanted.output: made[wanted.output] for wanted in passes}


def penalty(
    loss: AdversarialLoss, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor
) -> Tensor | float:
    """What the loss asks of the discriminator itself, weighted; 0 for most losses."""
    return loss.penalty(discriminator, real, fake) if isinstance(loss, PenalisedLoss) else 0.0


def _alike(batch: Tensor | None, other: Tensor) -> bool:
    return batch is not None and batch.shape[1:] == other.shape[1:]


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def tell_apart(
    loss: AdversarialLoss, judge: nn.Module, real: Tensor, fake: Tensor, *, factor: float = 0.5, batched: bool = True
) -> Tensor:
    """A discriminator's objective: `factor` times its loss on real images and on fakes, and what the loss asks of it beside.

    Args:
        fake: Without gradient.
        factor: ½ slows a discriminator relative to its generator (Zhu et al. 2017, appendix 7.1).
    """
    logits = run_passes(
        [Pass("real", judge, "real"), Pass("fake", judge, "fake")], {"real": real, "fake": fake}, batched=batched
    )
    tell_logits(judge, logits["real"], logits["fake"])
    return factor * (loss.real(logits["real"]) + loss.fake(logits["fake"])) + penalty(loss, judge, real, fake)


def tell_logits(judge: object, real: Tensor, fake: Tensor) -> None:
    """Let a discriminator that follows how it does see its logits; every system calls this once in each of its steps."""
    if isinstance(judge, ObservingDiscriminator):
        judge.observe(real.detach(), fake.detach())


def pool_generator(setting: Setting, name: str) -> torch.Generator:
    """The source of one pool's decisions; on the CPU also where the default device is another: the host decides."""
    return torch.Generator("cpu").manual_seed(derive_seed(setting.seed, "pool", name, process=setting.process))


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients inside a translation, which else has none: for what translates by optimising."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
