"""Rules of feature extractors."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import add_schema_rule, agree, check_device, check_inputs_kept, check_repeats
from gantoolkit.testing.strategies import image_batches

__all__ = ["feature_extractors"]

feature_extractors = Rulebook("feature_extractors", examples=5)
add_schema_rule(feature_extractors)

_SIZES = (64, 96)


def draw_images(subject: Subject, draw: Draw, *, min_count: int = 1) -> Tensor:
    if not subject.layers:
        raise NotApplicable("say which layers to ask for (layers=[...], or --layers)")
    channels = draw(st.sampled_from([3, 1]), "channels")
    strategy = image_batches(channels=channels, sizes=subject.sizes or _SIZES, min_count=min_count, max_count=2)
    return draw(strategy, "images").to(subject.device)


@feature_extractors.rule
def returns_every_layer(subject: Subject, draw: Draw) -> None:
    """For images (N, 1 or 3, H, W) it returns finite features (N, C', H', W') under the name of each layer asked for."""
    images = draw_images(subject, draw)
    features = subject.make()(images, subject.layers)
    expect(set(features) == set(subject.layers), f"it answered for {', '.join(features)}")
    for layer, values in features.items():
        expect(values.ndim == 4 and len(values) == len(images), f"{layer} has shape {tuple(values.shape)}")
        expect(bool(torch.isfinite(values).all()), f"{layer} is not finite")


@feature_extractors.rule
def passes_gradients(subject: Subject, draw: Draw) -> None:
    """Gradients reach the images, and nothing of its own learns."""
    images = draw_images(subject, draw).requires_grad_()
    features = subject.make()(images, subject.layers)
    total = torch.stack([values.square().mean() for values in features.values()]).sum()
    (gradient,) = torch.autograd.grad(total, images)
    expect(bool(gradient.any()), "the gradient by the images is 0")
    constant = subject.make()(images.detach(), subject.layers)
    expect(not any(values.requires_grad for values in constant.values()), "it has weights that learn")


@feature_extractors.rule
def is_batch_invariant(subject: Subject, draw: Draw) -> None:
    """An image's features do not depend on what else is in its batch."""
    extract, images = subject.make(), draw_images(subject, draw, min_count=2).double()
    together, alone = extract(images, subject.layers), extract(images[:1], subject.layers)
    expect(
        agree([together[layer][:1] for layer in alone], [alone[layer] for layer in alone]), "beside others they differ"
    )


@feature_extractors.rule
def does_not_modify_input(subject: Subject, draw: Draw) -> None:
    """Images are read and never changed in place."""
    extract = subject.make()
    check_inputs_kept(lambda images: extract(images, subject.layers), [draw_images(subject, draw)])


@feature_extractors.rule
def is_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal images have equal features, and no global random generator is touched."""
    extract, images = subject.make(), draw_images(subject, draw)
    extract(images, subject.layers)
    check_repeats(lambda: list(extract(images, subject.layers).values()))


@feature_extractors.rule
def supports_meta_device(subject: Subject, draw: Draw) -> None:
    """It follows its images to their device; on `meta` it needs no weights."""
    extract = subject.make()
    check_device(lambda images: list(extract(images, subject.layers).values()), [draw_images(subject, draw)])
