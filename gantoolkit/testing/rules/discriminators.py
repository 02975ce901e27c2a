"""Rules of discriminators and of coupled discriminators."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, flatten
from gantoolkit.testing.rules.networks import Case, add_network_rules, double, enlarge
from gantoolkit.testing.strategies import image_batches, seeds

__all__ = ["coupled_discriminators", "discriminators"]

_SIZES = (32, 48)
_SIDE = 32
_CHANNELS = st.sampled_from([3, 1, 6])
_COUPLED_CHANNELS = st.sampled_from([(3, 3), (1, 3), (3, 1)])
_WEIGHTS = 6

discriminators = Rulebook("discriminators", examples=8)
add_schema_rule(discriminators)


def draw_discriminator(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """A discriminator of images of some channels (6 are an image and its translation), and such images."""
    channels = draw(_CHANNELS, "in_channels")
    strategy = image_batches(
        channels=channels, sizes=subject.sizes or _SIZES, min_count=min_count, max_count=min_count + 1
    )
    images = draw(strategy, "images")
    return Case(lambda seed: subject.make(channels, seed=seed), (images.to(subject.device),))


@discriminators.rule
def returns_one_channel(subject: Subject, draw: Draw) -> None:
    """It is an `nn.Module`, and judges images (N, in_channels, H, W) by logits (N, 1, H', W')."""
    case = draw_discriminator(subject, draw)
    network = case.make(0)
    expect(isinstance(network, nn.Module), f"a {type(network).__name__} was made")
    with torch.no_grad():
        shape = tuple(network.eval()(*case.inputs).shape)
    count = len(case.inputs[0])
    expect(len(shape) == 4 and shape[:2] == (count, 1), f"shape {shape} where ({count}, 1, H', W') is wanted")


@discriminators.rule
def returns_logits(subject: Subject, draw: Draw) -> None:
    """Logits are free numbers: there are weights for which they are below 0, and above 1; no sigmoid or tanh bounds them."""
    _check_free(draw_discriminator(subject, draw))


add_network_rules(discriminators, draw_discriminator)

coupled_discriminators = Rulebook("coupled_discriminators", examples=8)
add_schema_rule(coupled_discriminators)


def draw_coupled(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """A pair of discriminators of square images, and images of A and of B."""
    channels = draw(_COUPLED_CHANNELS, "(channels_A, channels_B)")
    side = draw(st.sampled_from(subject.sizes or (_SIDE,)), "side")
    count = draw(st.integers(min_count, min_count + 2), "images")
    generator = torch.Generator("cpu").manual_seed(draw(seeds(), "seed of the images"))
    images = tuple(torch.rand(count, number, side, side, generator=generator) * 2 - 1 for number in channels)
    return Case(
        lambda seed: subject.make(*channels, side, seed=seed), tuple(batch.to(subject.device) for batch in images)
    )


@coupled_discriminators.rule
def returns_logits_for_both_domains(subject: Subject, draw: Draw) -> None:
    """Images of A and of B, (N, C, side, side), are judged by logits (N, 1, H', W') for each."""
    case = draw_coupled(subject, draw)
    with torch.no_grad():
        shapes = [tuple(logits.shape) for logits in flatten(case.make(0).eval()(*case.inputs))]
    count = len(case.inputs[0])
    right = len(shapes) == 2 and all(len(shape) == 4 and shape[:2] == (count, 1) for shape in shapes)
    expect(right, f"shapes {shapes} where two of ({count}, 1, H', W') are wanted")


@coupled_discriminators.rule
def returns_unbounded_logits(subject: Subject, draw: Draw) -> None:
    """Logits are free numbers: there are weights for which they are below 0, and above 1; no sigmoid or tanh bounds them."""
    _check_free(draw_coupled(subject, draw))


add_network_rules(coupled_discriminators, draw_coupled)


def _check_free(case: Case) -> None:
    values: list[Tensor] = []
    for seed in range(_WEIGHTS):
        network = case.make(seed).double().eval()
        enlarge(network, factor=10.0, shift=5.0 if seed % 2 else -5.0)
        with torch.no_grad():
            values += [output.flatten() for output in flatten(network(*double(case.inputs)))]
    every = torch.cat(values)
    low, high = every.min().item(), every.max().item()
    expect(
        low < 0 and high > 1, f"for {_WEIGHTS} draws of large weights all logits lie between {low:.4g} and {high:.4g}"
    )
