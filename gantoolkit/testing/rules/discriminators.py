"""Rules of discriminators and of coupled discriminators."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, flatten
from gantoolkit.testing.rules.networks import Case, DrawCase, add_network_rules, scale_weights, to_float64
from gantoolkit.testing.strategies import image_batches, seeds

__all__ = ["coupled_discriminators", "discriminators"]

_SIZES = (32, 48)
_SIDE = 32
_CHANNELS = st.sampled_from([3, 1, 6])
_COUPLED_CHANNELS = st.sampled_from([(3, 3), (1, 3), (3, 1)])
_INITIALIZATIONS = 6

discriminators = Rulebook("discriminators", examples=8)
add_schema_rule(discriminators)


def draw_discriminator(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """Draw a number of channels (6 for an image with its translation), and a discriminator and images that have it."""
    channels = draw(_CHANNELS, "in_channels")
    strategy = image_batches(
        channels=channels, sizes=subject.sizes or _SIZES, min_count=min_count, max_count=min_count + 1
    )
    images = draw(strategy, "images")
    return Case(lambda seed: subject.make(channels, seed=seed), (images.to(subject.device),))


@discriminators.rule
def returns_one_channel(subject: Subject, draw: Draw) -> None:
    """The discriminator is an `nn.Module` that maps images (N, in_channels, H, W) to logits (N, 1, H', W')."""
    case = draw_discriminator(subject, draw)
    network = case.make(0)
    expect(isinstance(network, nn.Module), f"it is a {type(network).__name__}")
    with torch.no_grad():
        shape = tuple(network.eval()(*case.inputs).shape)
    count = len(case.inputs[0])
    expect(len(shape) == 4 and shape[:2] == (count, 1), f"shape {shape}, expected ({count}, 1, H', W')")


def add_range_rule(book: Rulebook, draw_case: DrawCase) -> None:
    """Add the rule that outputs are logits, for one discriminator and for two."""

    @book.rule
    def returns_unbounded_logits(subject: Subject, draw: Draw) -> None:
        """Outputs are logits, without a final sigmoid or tanh: some weights give values below 0 and above 1."""
        case = draw_case(subject, draw)
        outputs: list[Tensor] = []
        for seed in range(_INITIALIZATIONS):
            network = case.make(seed).double().eval()
            scale_weights(network, factor=10.0, shift=5.0 if seed % 2 else -5.0)
            with torch.no_grad():
                outputs += [output.flatten() for output in flatten(network(*to_float64(case.inputs)))]
        values = torch.cat(outputs)
        low, high = values.min().item(), values.max().item()
        expect(
            low < 0 and high > 1,
            f"with {_INITIALIZATIONS} sets of large random weights all logits are between {low:.4g} and {high:.4g}",
        )


add_range_rule(discriminators, draw_discriminator)
add_network_rules(discriminators, draw_discriminator)

coupled_discriminators = Rulebook("coupled_discriminators", examples=8)
add_schema_rule(coupled_discriminators)


def draw_coupled(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """Draw a pair of discriminators for square images, with images of A and of B."""
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
    """Images of A and of B, each (N, C, side, side), give two tensors of logits (N, 1, H', W')."""
    case = draw_coupled(subject, draw)
    with torch.no_grad():
        shapes = [tuple(logits.shape) for logits in flatten(case.make(0).eval()(*case.inputs))]
    count = len(case.inputs[0])
    fits = len(shapes) == 2 and all(len(shape) == 4 and shape[:2] == (count, 1) for shape in shapes)
    expect(fits, f"shapes {shapes}, expected two of ({count}, 1, H', W')")


add_range_rule(coupled_discriminators, draw_coupled)
add_network_rules(coupled_discriminators, draw_coupled)
