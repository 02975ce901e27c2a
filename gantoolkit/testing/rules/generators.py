"""Rules of generators and of coupled generators."""

import copy
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gantoolkit.errors import first_line
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.runtime.rounding import round_in_place
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect, same_randomness
from gantoolkit.testing.rules.common import add_schema_rule, flatten
from gantoolkit.testing.rules.networks import Case, DrawCase, add_network_rules, scale_weights, to_float64
from gantoolkit.testing.strategies import image_batches, seeds

__all__ = ["coupled_generators", "generators"]

_SMALLEST_SIDE = 16
_SIDE = 32
_CHANNELS = st.sampled_from([(3, 3), (1, 3), (3, 1)])

generators = Rulebook("generators", examples=8)
add_schema_rule(generators)


def draw_generator(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """Draw numbers of channels, and a generator and images that have them, of sizes that the generator accepts."""
    source, target = draw(_CHANNELS, "(in_channels, out_channels)")
    sizes = subject.sizes or suitable_sizes(subject.make(source, target))
    images = draw(image_batches(channels=source, sizes=sizes, min_count=min_count, max_count=min_count + 1), "images")
    return Case(lambda seed: subject.make(source, target, seed=seed), (images.to(subject.device),))


def suitable_sizes(network: nn.Module) -> Sequence[int]:
    """The two smallest sides, from 16 pixels on, that a generator's traits allow."""
    traits = read_traits(network, NetworkTraits)
    multiple = traits.size_multiple if isinstance(traits.size_multiple, int) and traits.size_multiple > 0 else 1
    smallest = max(_SMALLEST_SIDE, traits.smallest_size)
    first = -(-smallest // multiple) * multiple
    return first, first + multiple


@generators.rule
def declares_size_multiple(subject: Subject, draw: Draw) -> None:
    """The generator is an `nn.Module` with an int attribute `size_multiple` ≥ 1. It accepts heights and widths that are
    multiples of this number.
    """
    network = subject.make(*draw(_CHANNELS, "(in_channels, out_channels)"))
    expect(isinstance(network, nn.Module), f"it is a {type(network).__name__}")
    multiple = read_traits(network, NetworkTraits).size_multiple
    expect(isinstance(multiple, int) and multiple >= 1, f"size_multiple is {multiple!r}")


@generators.rule
def preserves_size(subject: Subject, draw: Draw) -> None:
    """Images (N, in_channels, H, W) are translated to images (N, out_channels, H, W), for every H and W that it accepts."""
    source, target = draw(_CHANNELS, "(in_channels, out_channels)")
    network = subject.make(source, target)
    images = draw(image_batches(channels=source, sizes=subject.sizes or suitable_sizes(network)), "images")
    with torch.no_grad():
        shape = tuple(network.eval()(images.to(subject.device)).shape)
    expected_shape = (len(images), target, *images.shape[-2:])
    expect(shape == expected_shape, f"shape {shape}, expected {expected_shape}")


def add_range_rule(book: Rulebook, draw_case: DrawCase) -> None:
    """Add the rule on the range of images, for one generator and for two."""

    @book.rule
    def output_is_in_range(subject: Subject, draw: Draw) -> None:
        """The generated images are finite and in [−1, 1], whatever the weights are."""
        case = draw_case(subject, draw)
        network = case.make(draw(seeds(), "seed of the weights")).double().eval()
        scale_weights(network, draw(st.sampled_from([1.0, 10.0]), "factor on the weights"))
        with torch.no_grad():
            values = torch.cat([images.flatten() for images in flatten(network(*to_float64(case.inputs)))])
        low, high = values.min().item(), values.max().item()
        expect(bool((values.abs() <= 1).all()), f"values from {low:.4g} to {high:.4g}")


add_range_rule(generators, draw_generator)
add_network_rules(generators, draw_generator)


@generators.rule
def allows_narrow_weights(subject: Subject, draw: Draw) -> None:
    """If it declares `narrow_weights`, weights that are rounded in advance give the same output under autocast, bit for bit."""
    case = draw_generator(subject, draw)
    network = case.make(draw(seeds(), "seed of the weights")).eval()
    if not read_traits(network, NetworkTraits).narrow_weights:
        raise NotApplicable("it does not declare narrow_weights")
    rounded = copy.deepcopy(network)
    round_in_place(rounded, torch.bfloat16, subject.device)

    def translate(network: nn.Module) -> Tensor:
        with torch.no_grad(), same_randomness(0), torch.autocast(subject.device.type, torch.bfloat16):
            return network(*case.inputs)

    try:
        difference = (translate(rounded) - translate(network)).abs().max().item()
    except RuntimeError as error:
        return expect(False, f"with weights in bfloat16 it raised: {first_line(error)}")
    return expect(difference == 0, f"the output differs by {difference:.3g} if the weights are in bfloat16")


coupled_generators = Rulebook("coupled_generators", examples=8)
add_schema_rule(coupled_generators)


def draw_coupled(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """Draw a pair of generators for square images, and latents."""
    channels, side = draw_shape(subject, draw)
    size = subject.make(*channels, side).latent_size
    generator = torch.Generator("cpu").manual_seed(draw(seeds(), "seed of the latents"))
    latents = torch.rand(draw(st.integers(min_count, min_count + 2), "latents"), size, generator=generator) * 2 - 1
    return Case(lambda seed: subject.make(*channels, side, seed=seed), (latents.to(subject.device),))


def draw_shape(subject: Subject, draw: Draw) -> tuple[tuple[int, int], int]:
    """Draw the channels of both domains, and the side of their images."""
    channels = draw(_CHANNELS, "(channels_A, channels_B)")
    return channels, draw(st.sampled_from(subject.sizes or (_SIDE,)), "side")


@coupled_generators.rule
def renders_both_domains(subject: Subject, draw: Draw) -> None:
    """Latents (N, latent_size) give images (N, channels_A, side, side) and (N, channels_B, side, side)."""
    channels, side = draw_shape(subject, draw)
    network = subject.make(*channels, side)
    expect(isinstance(getattr(network, "latent_size", None), int), "it has no int attribute latent_size")
    with torch.no_grad():
        outputs = network.eval()(torch.zeros(2, network.latent_size, device=subject.device))
    shapes = [tuple(images.shape) for images in flatten(outputs)]
    expected_shapes = [(2, count, side, side) for count in channels]
    expect(shapes == expected_shapes, f"shapes {shapes}, expected {expected_shapes}")


add_range_rule(coupled_generators, draw_coupled)
add_network_rules(coupled_generators, draw_coupled)
