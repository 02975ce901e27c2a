"""The parts of an objective: terms, translations, discriminator losses, and the random numbers of image pools.

A system lists its terms in an `Objective`, one line each, and the translations that they may need in a second table:

>>> objective = Objective(
...     terms=[Term("cycle_A", 10.0, lambda rec_A, A: (rec_A - A).abs().mean()), Term("identity_A", 0.0, lambda idt_A, A: ...)],
...     translations=[
...         Translation("fake_B", "G_AB", "A"),
...         Translation("rec_A", "G_BA", "fake_B"),
...         Translation("idt_A", "G_BA", "A"),
...     ],
... )
>>> [translation.image for translation in objective.translations]  # nothing needs idt_A: its term has weight 0
['fake_B', 'rec_A']
"""

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gantoolkit.errors import PluginError
from gantoolkit.plugins import AdversarialLoss, ObservingDiscriminator, PenalizedLoss, SystemContext
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.runtime.streams import run_parallel

__all__ = [
    "DirectionName",
    "DomainWeight",
    "Objective",
    "Term",
    "Translation",
    "Weight",
    "discriminator_loss",
    "gradients",
    "observe_logits",
    "penalty",
    "per_domain",
    "pool_generator",
    "run_batched",
]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

DirectionName = Literal["A2B", "B2A"]

DomainWeight = Weight | tuple[Weight, Weight]
"""One weight for both domains, or one for A and one for B."""


def per_domain(weight: float | tuple[float, float]) -> tuple[float, float]:
    """The weights for A and for B."""
    return weight if isinstance(weight, tuple) else (weight, weight)


@dataclass(frozen=True)
class Term:
    """One line of an objective: `weight` times `value`.

    Args:
        name: The logged name of the term.
        weight: A term of weight 0 is left out.
        value: Computes the term as a scalar. Its arguments are what `needs` names.
        needs: Images of the batch (`A`), translations (`fake_B`) and networks (`D_B`). By default, the names of the parameters
            of `value`. In a CUDA graph, terms of different networks run in parallel, so name all networks that it uses.
    """

    name: str
    weight: float
    value: Callable[..., Tensor]
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.needs:
            object.__setattr__(self, "needs", tuple(inspect.signature(self.value).parameters))


@dataclass(frozen=True)
class Translation:
    """One forward pass of a generator: `Translation("fake_B", "G_AB", "A")` means fake_B = G_AB(A)."""

    image: str
    generator: str
    source: str


class Objective:
    """A weighted sum of terms, and the translations that they need.

    Args:
        terms: In the order in which they are added up. Terms of weight 0 are dropped.
        translations: In the order in which they are computed. Those that no term needs are dropped.
    """

    def __init__(self, terms: Iterable[Term], translations: Sequence[Translation] = ()) -> None:
        self.terms = tuple(term for term in terms if term.weight)
        images = {name for term in self.terms for name in term.needs}
        for translation in reversed(translations):  # a translation may need an earlier one
            if translation.image in images:
                images.add(translation.source)
        self.translations = tuple(translation for translation in translations if translation.image in images)

    @cached_property
    def needs(self) -> frozenset[str]:
        """The names of all images and networks that take part."""
        generators = {translation.generator for translation in self.translations}
        sources = {translation.source for translation in self.translations}
        return frozenset({name for term in self.terms for name in term.needs} | generators | sources)

    def only(self, names: Iterable[str]) -> "Objective":
        """The objective of some of its terms."""
        names = set(names)
        return Objective([term for term in self.terms if term.name in names], self.translations)

    def translate(
        self, networks: Mapping[str, nn.Module], images: Mapping[str, Tensor], *, batched: bool = True
    ) -> dict[str, Tensor]:
        """Compute all translations.

        On CUDA, a round passes images through all generators that have some, in parallel in a CUDA graph. Elsewhere it passes
        them through one generator, so that the batches are as large as possible.

        Args:
            networks: The generators by name.
            images: The batch.
            batched: Pass images through a generator as one batch where `run_batched` does so.

        Raises:
            PluginError: When a translation needs an image or a generator that is not there.
        """
        known = dict(images)
        pending = list(self.translations)
        while pending:
            first = pending[0]
            for needed, available in ((first.source, known), (first.generator, networks)):
                if needed not in available:
                    raise PluginError(
                        f"translation '{first.image}' needs '{needed}', which is neither given nor computed before it; known: "
                        f"{', '.join(available)}"
                    )
            ready = [translation for translation in pending if translation.source in known]
            names = [first.generator]
            if known[first.source].is_cuda:
                names += [translation.generator for translation in ready if translation.generator in networks]
            tasks, groups = [], []
            for name in dict.fromkeys(names):
                group = [translation for translation in ready if translation.generator == name]
                inputs = [known[translation.source] for translation in group]
                if not (batched and _is_batchable(networks[name], inputs)):
                    group, inputs = group[:1], inputs[:1]
                groups.append(group)
                tasks.append((name, partial(run_batched, networks[name], inputs)))
            for group, results in zip(groups, run_parallel(tasks), strict=True):
                known |= {translation.image: result for translation, result in zip(group, results, strict=True)}
            pending = [translation for translation in pending if translation.image not in known]
        return {translation.image: known[translation.image] for translation in self.translations}

    def losses(self, networks: Mapping[str, nn.Module], images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each term with its weight, by name.

        Args:
            networks: By name.
            images: The batch and the translations.

        Raises:
            PluginError: When a term needs something that is not there.
        """
        known = {**networks, **images}
        tasks: list[tuple[str, Callable[[], Tensor]]] = []
        is_parallel = all(sum(name in networks for name in term.needs) <= 1 for term in self.terms)
        for term in self.terms:
            if missing := [name for name in term.needs if name not in known]:
                raise PluginError(
                    f"term '{term.name}' needs '{missing[0]}', which is not an image or a network of this system; known: "
                    f"{', '.join(known)}"
                )
            network = next((name for name in term.needs if name in networks and is_parallel), "")
            tasks.append((network, partial(term.value, *(known[name] for name in term.needs))))
        values = zip(self.terms, run_parallel(tasks), strict=True)
        return {term.name: value if term.weight == 1 else term.weight * value for term, value in values}


def run_batched(network: nn.Module, inputs: Sequence[Tensor], *, batched: bool = True) -> list[Tensor]:
    """Pass several batches through a network: as one batch where that gives the same results faster, else one by one."""
    if len(inputs) > 1 and batched and _is_batchable(network, inputs):
        return list(network(torch.cat(list(inputs))).split([len(images) for images in inputs]))
    return [network(images) for images in inputs]


def _is_batchable(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether batches may be concatenated: they have one shape, and the network has no batch norm, whose result depends on
    the batch.
    """
    return not _has_batch_norm(network) and len({images.shape[1:] for images in inputs}) == 1


_BATCH_NORMS: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def _has_batch_norm(network: nn.Module) -> bool:
    # Once per network: this is asked several times in every step.
    if network not in _BATCH_NORMS:
        _BATCH_NORMS[network] = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    return _BATCH_NORMS[network]


def discriminator_loss(
    loss: AdversarialLoss,
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    factor: float = 0.5,
    batched: bool = True,
) -> Tensor:
    """The loss of a discriminator on real images and on fakes, times `factor`, plus its gradient penalty if it has one.

    Args:
        fake: Without gradient.
        factor: ½ slows the discriminator down relative to its generator (Zhu et al. 2017, appendix 7.1).
    """
    real_logits, fake_logits = run_batched(discriminator, [real, fake], batched=batched)
    observe_logits(discriminator, real_logits, fake_logits)
    return factor * (loss.real(real_logits) + loss.fake(fake_logits)) + penalty(loss, discriminator, real, fake)


def penalty(
    loss: AdversarialLoss, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor
) -> Tensor | float:
    """The weighted penalty on the discriminator itself; 0 for a loss without one."""
    return loss.penalty(discriminator, real, fake) if isinstance(loss, PenalizedLoss) else 0.0


def observe_logits(discriminator: object, real: Tensor, fake: Tensor) -> None:
    """Pass its logits to a discriminator that adapts to them. Every system calls this once in each discriminator step."""
    if isinstance(discriminator, ObservingDiscriminator):
        discriminator.observe(real.detach(), fake.detach())


def pool_generator(context: SystemContext, name: str) -> torch.Generator:
    """The random generator of one image pool. It is on the CPU, whatever the default device, because the host decides."""
    return torch.Generator("cpu").manual_seed(derive_seed(context.seed, "pool", name, rank=context.rank))


@contextmanager
def gradients() -> Iterator[None]:
    """Enable gradients inside a translation, for generators that translate by optimizing."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
