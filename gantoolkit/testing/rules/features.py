"""Rules of feature extractors."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import (
    add_schema_rule,
    all_close,
    check_deterministic,
    check_device,
    check_inputs_unchanged,
)
from gantoolkit.testing.strategies import image_batches

__all__ = ["feature_extractors"]

feature_extractors = Rulebook("feature_extractors", examples=5)
add_schema_rule(feature_extractors)

_SIZES = (64, 96)


def draw_images(subject: Subject, draw: Draw, *, min_count: int = 1) -> Tensor:
    if not subject.layers:
        raise NotApplicable("name the layers to request (layers=[...], or --layers)")
    channels = draw(st.sampled_from([3, 1]), "channels")
    strategy = image_batches(channels=channels, sizes=subject.sizes or _SIZES, min_count=min_count, max_count=2)
    return draw(strategy, "images").to(subject.device)


@feature_extractors.rule
def returns_every_layer(subject: Subject, draw: Draw) -> None:
    """For images (N, 1 or 3, H, W) it returns a mapping from every requested layer to finite features (N, C', H', W')."""
    images = draw_images(subject, draw)
    features = subject.make()(images, subject.layers)
    expect(set(features) == set(subject.layers), f"it returned the layers {', '.join(features)}")
    for layer, values in features.items():
        expect(values.ndim == 4 and len(values) == len(images), f"{layer} has shape {tuple(values.shape)}")
        expect(bool(torch.isfinite(values).all()), f"{layer} is not finite")


@feature_extractors.rule
def passes_gradients(subject: Subject, draw: Draw) -> None:
    """Gradients flow back to the images. The extractor's own weights are frozen."""
    images = draw_images(subject, draw).requires_grad_()
    features = subject.make()(images, subject.layers)
    total = torch.stack([values.square().mean() for values in features.values()]).sum()
    (gradient,) = torch.autograd.grad(total, images)
    expect(bool(gradient.any()), "the gradient with respect to the images is 0")
    constant = subject.make()(images.detach(), subject.layers)
    expect(not any(values.requires_grad for values in constant.values()), "it has weights that require a gradient")


@feature_extractors.rule
def is_batch_invariant(subject: Subject, draw: Draw) -> None:
    """The features of an image do not depend on the other images in its batch."""
    extract, images = subject.make(), draw_images(subject, draw, min_count=2).double()
    together, alone = extract(images, subject.layers), extract(images[:1], subject.layers)
    expect(
        all_close([together[layer][:1] for layer in alone], [alone[layer] for layer in alone]),
        "the features of an image differ between a batch of one and a larger batch",
    )


@feature_extractors.rule
def does_not_modify_input(subject: Subject, draw: Draw) -> None:
    """The images are not changed in place."""
    extract = subject.make()
    check_inputs_unchanged(lambda images: extract(images, subject.layers), [draw_images(subject, draw)])


@feature_extractors.rule
def is_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal images give equal features. Global random generators are neither used nor advanced."""
    extract, images = subject.make(), draw_images(subject, draw)
    extract(images, subject.layers)
    check_deterministic(lambda: list(extract(images, subject.layers).values()))


@feature_extractors.rule
def is_device_agnostic(subject: Subject, draw: Draw) -> None:
    """It runs on the device of the images. On `meta` it does not load its weights."""
    extract = subject.make()
    check_device(lambda images: list(extract(images, subject.layers).values()), [draw_images(subject, draw)])
