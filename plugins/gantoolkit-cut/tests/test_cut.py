"""CUT conforms to the protocols and matches its paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gantoolkit.errors import RecipeError
from gantoolkit.plugins import SystemContext
from gantoolkit.testing import recipe_checks, seeds, system_checks
from gantoolkit_cut import CUT, PatchNCE, cut, encode, fastcut

SMALL = {"nce_layers": ["layers.0", "layers.4", "layers.7"], "patches": 16, "head_width": 8}


@system_checks({"name": "cut", **SMALL})
def test_cut_system(check) -> None:
    check()


@system_checks({"name": "cut", **SMALL, "identity_nce": False, "flip_equivariance": True, "direction": "B2A"})
def test_fastcut_system(check) -> None:
    check()


@recipe_checks("cut")
def test_cut_recipe(check) -> None:
    check()


@recipe_checks("fastcut")
def test_fastcut_recipe(check) -> None:
    check()


@settings(deadline=None, derandomize=True)
@given(seed=seeds(), count=st.integers(2, 9), temperature=st.sampled_from([0.07, 0.5]))
def test_loss_matches_formula_of_the_paper(seed: int, count: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (
        nn.functional.normalize(torch.randn(2, count, 4, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    total = 0.0
    for image in range(2):
        for index in range(count):
            similarities = [
                math.exp(float(queries[image, index] @ keys[image, other]) / temperature) for other in range(count)
            ]
            total -= math.log(similarities[index] / sum(similarities))
    assert float(PatchNCE(temperature=temperature)(queries, keys)) == pytest.approx(total / (2 * count))


def test_loss_is_smallest_for_matching_patches() -> None:
    vectors = torch.eye(8)[None]
    loss = PatchNCE()
    assert loss(vectors, vectors) < 1e-4
    assert loss(vectors, vectors.roll(1, dims=1)) > 10


def test_keys_get_no_gradient() -> None:
    queries, keys = torch.randn(1, 4, 3, requires_grad=True), torch.randn(1, 4, 3, requires_grad=True)
    PatchNCE()(queries, keys).backward()
    assert keys.grad is None
    assert queries.grad is not None


def test_encoding_stops_at_the_deepest_layer() -> None:
    calls: list[str] = []
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    network[2].register_forward_hook(lambda *_: calls.append("last"))
    images = torch.rand(2, 3, 4, 4)
    first, second = encode(network, images, ["0", "1"])
    assert torch.equal(first, network[0](images))
    assert torch.equal(second, first.relu())
    assert not calls
    assert not network[0]._forward_hooks


def small(**changes: object) -> CUT:
    from gantoolkit.recipes.block_spec import BlockSpec, bind, resolve

    slots = {
        "generator": {"name": "resnet", "width": 4, "blocks": 1},
        "discriminator": {"name": "patchgan", "width": 4, "layers": 1},
        "adversarial_loss": "lsgan",
        "image_pool": "none",
    }
    block = resolve("systems", BlockSpec.of("cut", **slots, **SMALL, **changes), "cut")
    return bind("systems", block)(SystemContext(3, 3, 0, 32))


def test_flipped_translation_is_compared_with_unflipped_image() -> None:
    system = small(identity_nce=False)
    images, translated = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    torch.manual_seed(1)
    mirrored = system.compare(translated.flip(-1), images, mirrored=torch.tensor(True))
    # The generator is not flip-equivariant, so only its input layer, the padded pixels, is exactly equal.
    queries = encode(system.G, translated.flip(-1), ("layers.0",))[0].flip(-1)
    assert torch.equal(queries, encode(system.G, translated, ("layers.0",))[0])
    assert torch.isfinite(mirrored)


def test_recipes_match_both_variants_of_the_paper() -> None:
    assert cut().check().system.parameters["nce_weight"] == 1.0
    differences = fastcut().diff(cut())
    assert {name: value for name, (value, _) in differences.items()} == {
        "nce_weight": 10.0,
        "identity_nce": False,
        "flip_equivariance": True,
        "scheduler.decay_epochs": 50,
        "training.epochs": 200,
    }


def test_both_terms_are_halved_with_the_identity_term() -> None:
    batch = {"A": torch.rand(1, 3, 32, 32) * 2 - 1, "B": torch.rand(1, 3, 32, 32) * 2 - 1}
    torch.manual_seed(0)
    system = small()
    shared = system.forward(batch)
    torch.manual_seed(3)
    with_identity = system.generator_losses(batch, shared)["nce"]
    torch.manual_seed(0)
    system = small(identity_nce=False)
    torch.manual_seed(3)
    without = system.generator_losses(batch, shared)["nce"]
    assert float(with_identity.detach()) == pytest.approx(0.5 * float(without.detach()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nce_layers": ["layers.0", "encoder.3"]}, "ResNetGenerator has no module 'encoder.3'; it has layers"),
        ({"data.channels_A": 1}, "A has 1 channels and B has 3"),
        ({"temperature": 0}, "'temperature' cannot be 0"),
    ],
)
def test_invalid_settings_are_reported_in_one_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        cut().swap(changes).check()
