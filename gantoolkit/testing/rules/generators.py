"""Rules of generators and of coupled generators."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import nn

from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, flatten
from gantoolkit.testing.rules.networks import Case, add_network_rules, double, enlarge
from gantoolkit.testing.strategies import image_batches, seeds

__all__ = ["coupled_generators", "generators"]

_LEAST_SIDE = 16
_SIDE = 32
_CHANNELS = st.sampled_from([(3, 3), (1, 3), (3, 1)])

generators = Rulebook("generators", examples=8)
add_schema_rule(generators)


def draw_generator(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """A generator between domains of some channels, and images of sizes that it says it takes."""
    source, target = draw(_CHANNELS, "(in_channels, out_channels)")
    sizes = subject.sizes or suitable_sizes(subject.make(source, target))
    images = draw(image_batches(channels=source, sizes=sizes, min_count=min_count, max_count=min_count + 1), "images")
    return Case(lambda seed: subject.make(source, target, seed=seed), (images.to(subject.device),))


def suitable_sizes(network: nn.Module) -> Sequence[int]:
    """The first two sides that a generator says it takes."""
    traits = read_traits(network, NetworkTraits)
    multiple = traits.size_multiple if isinstance(traits.size_multiple, int) and traits.size_multiple > 0 else 1
    least = max(_LEAST_SIDE, traits.smallest_size)
    first = -(-least // multiple) * multiple
    return first, first + multiple


@generators.rule
def declares_size_multiple(subject: Subject, draw: Draw) -> None:
    """It is an `nn.Module` with an int `size_multiple` ≥ 1: what heights and widths have to be multiples of."""
    network = subject.make(*draw(_CHANNELS, "(in_channels, out_channels)"))
    expect(isinstance(network, nn.Module), f"a {type(network).__name__} was made")
    multiple = read_traits(network, NetworkTraits).size_multiple
    expect(isinstance(multiple, int) and multiple >= 1, f"size_multiple is {multiple!r}")


@generators.rule
def preserves_size(subject: Subject, draw: Draw) -> None:
    """Images (N, in_channels, H, W) become images (N, out_channels, H, W), for every height and width that it takes."""
    source, target = draw(_CHANNELS, "(in_channels, out_channels)")
    network = subject.make(source, target)
    images = draw(image_batches(channels=source, sizes=subject.sizes or suitable_sizes(network)), "images")
    with torch.no_grad():
        shape = tuple(network.eval()(images.to(subject.device)).shape)
    wanted = (len(images), target, *images.shape[-2:])
    expect(shape == wanted, f"shape {shape} where {wanted} is wanted")


@generators.rule
def output_is_in_range(subject: Subject, draw: Draw) -> None:
    """Whatever its weights, its images are finite and in [−1, 1]."""
    case = draw_generator(subject, draw)
    network = case.make(draw(seeds(), "seed of the weights")).double().eval()
    enlarge(network, draw(st.sampled_from([1.0, 10.0]), "factor on the weights"))
    with torch.no_grad():
        made = network(*double(case.inputs))
    low, high = made.min().item(), made.max().item()
    expect(bool(torch.isfinite(made).all()) and low >= -1 and high <= 1, f"values from {low:.4g} to {high:.4g}")


add_network_rules(generators, draw_generator)

coupled_generators = Rulebook("coupled_generators", examples=8)
add_schema_rule(coupled_generators)


def draw_coupled(subject: Subject, draw: Draw, *, min_count: int = 1) -> Case:
    """A pair of generators for square images, and latents."""
    channels, side = (
        draw(_CHANNELS, "(channels_A, channels_B)"),
        draw(st.sampled_from(subject.sizes or (_SIDE,)), "side"),
    )
    size = subject.make(*channels, side).latent_size
    generator = torch.Generator("cpu").manual_seed(draw(seeds(), "seed of the latents"))
    latents = torch.rand(draw(st.integers(min_count, min_count + 2), "latents"), size, generator=generator) * 2 - 1
    return Case(lambda seed: subject.make(*channels, side, seed=seed), (latents.to(subject.device),))


@coupled_generators.rule
def renders_both_domains(subject: Subject, draw: Draw) -> None:
    """Latents (N, latent_size) become images (N, channels_A, side, side) and (N, channels_B, side, side)."""
    channels, side = (
        draw(_CHANNELS, "(channels_A, channels_B)"),
        draw(st.sampled_from(subject.sizes or (_SIDE,)), "side"),
    )
    network = subject.make(*channels, side)
    expect(isinstance(getattr(network, "latent_size", None), int), "it has no int attribute latent_size")
    with torch.no_grad():
        made = network.eval()(torch.zeros(2, network.latent_size, device=subject.device))
    shapes = [tuple(images.shape) for images in flatten(made)]
    wanted = [(2, count, side, side) for count in channels]
    expect(shapes == wanted, f"shapes {shapes} where {wanted} are wanted")


@coupled_generators.rule
def rendering_is_in_range(subject: Subject, draw: Draw) -> None:
    """Whatever its weights, its images are finite and in [−1, 1]."""
    case = draw_coupled(subject, draw)
    network = case.make(draw(seeds(), "seed of the weights")).double().eval()
    enlarge(network, draw(st.sampled_from([1.0, 10.0]), "factor on the weights"))
    with torch.no_grad():
        values = torch.cat([images.flatten() for images in flatten(network(*double(case.inputs)))])
    expect(bool((values.abs() <= 1).all()), f"values from {values.min().item():.4g} to {values.max().item():.4g}")


add_network_rules(coupled_generators, draw_coupled)
