"""The systems that CycleGAN is compared with: objectives equal their formulas, gradients reach the trained networks only."""

from typing import Any

import pytest
import torch
from _helpers.recipes import TINY_RECIPES
from _helpers.small import TINY, batch_of
from _helpers.systems import count_calls, losses_of, system_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gantoolkit.blocks.discriminators import CoupledDiscriminator
from gantoolkit.blocks.generators import CoupledGenerator
from gantoolkit.errors import RecipeError
from gantoolkit.plugins import image_losses
from gantoolkit.recipes import Recipe, bigan, cogan, cyclegan, feature_gan, simgan
from gantoolkit.systems.gatys import gram_matrices
from gantoolkit.training import Trainer

LEARNING = [name for name in TINY_RECIPES if name != "gatys"]


def seeded_losses(system: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # for latents and dropout
    return losses_of(system, batch)


@pytest.mark.parametrize("name", TINY_RECIPES)
def test_each_recipe_passes_the_check(name: str) -> None:
    assert TINY_RECIPES[name].check().base in name or name in ("adversarial_cycle", "lua")


@pytest.mark.parametrize("name", LEARNING)
def test_gradients_reach_exactly_the_parameters_that_a_phase_trains(name: str) -> None:
    recipe = TINY_RECIPES[name]
    system = system_of(recipe)
    batch = batch_of(recipe, count=2)
    trained: set[str] = set()
    for network in system.networks.values():
        network.requires_grad_(True)
    shared = system.forward(batch)
    for phase in system.phases:
        for network_name, network in system.networks.items():
            network.zero_grad()
            network.requires_grad_(network_name in phase.trains)
        sum(phase.losses(batch, shared).values()).backward()
        for network_name, network in system.networks.items():
            reached = [parameter.grad is not None for parameter in network.parameters()]
            assert all(reached) if network_name in phase.trains else not any(reached), (phase.name, network_name)
        trained |= set(phase.trains)
    assert trained == set(system.networks), "no phase trains some network"


@pytest.mark.parametrize("name", LEARNING)
def test_a_small_gradient_step_decreases_the_loss_of_every_phase(name: str) -> None:
    recipe = TINY_RECIPES[name].swap({"image_pool": "none"} if "image_pool" in TINY_RECIPES[name].to_mapping() else {})
    system = system_of(recipe)
    for network in system.networks.values():
        network.double()
    batch = batch_of(recipe, count=2, dtype=torch.float64)

    def evaluate(index: int) -> torch.Tensor:
        """The total loss of a phase, computed after those of the preceding phases; no weight changes."""
        torch.manual_seed(0)  # for latents and dropout
        for network in system.networks.values():
            network.requires_grad_(True)
        shared = system.forward(batch)
        sums = [sum(phase.losses(batch, shared).values()) for phase in system.phases[: index + 1]]
        return sums[-1]

    for index, phase in enumerate(system.phases):
        parameters = [p for name in phase.trains for p in system.networks[name].parameters()]
        before = evaluate(index)
        gradients = torch.autograd.grad(before, parameters)
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 1e-6 / norm * gradient
        # To first order, the loss decreases by the length of the step times the norm of the gradient.
        torch.testing.assert_close(before - evaluate(index), 1e-6 * norm, rtol=0.05, atol=0)


@pytest.mark.parametrize("name", LEARNING)
def test_swapped_domains_change_every_term(name: str) -> None:
    recipe = TINY_RECIPES[name]
    system = system_of(recipe)
    for network in system.networks.values():
        network.eval()
    batch = batch_of(recipe, count=2)
    right, wrong = seeded_losses(system, batch), seeded_losses(system, {"A": batch["B"], "B": batch["A"]})
    unchanged = {term for term in right if torch.isclose(right[term], wrong[term])}
    # CoGAN's generator takes no image as input.
    assert unchanged == ({"G/adversarial_A", "G/adversarial_B"} if name == "cogan" else set())


@given(side=st.sampled_from([16, 32]), count=st.integers(1, 3), channels=st.tuples(*[st.sampled_from([1, 3])] * 2))
@pytest.mark.parametrize("name", ["cyclegan", "bigan", "cogan", "pix2pix"])
def test_translations_have_the_shape_of_their_domain(name: str, side, count: int, channels) -> None:
    a, b = channels
    recipe = TINY_RECIPES[name].swap(
        {"data.channels_A": a, "data.channels_B": b, "data.crop_size": side, "data.load_size": side}
    )
    if "identity_weight" in recipe.to_mapping():
        recipe = recipe.swap(identity_weight=0.0)
    system = system_of(recipe)
    for network in system.networks.values():
        network.eval()
    images = {"A": torch.rand(count, a, side, side) * 2 - 1, "B": torch.rand(count, b, side, side) * 2 - 1}
    for direction, network in system.directions.items():
        source, target = direction.split("2")
        with torch.inference_mode():  # as the translator does
            translations = network(images[source])
        assert translations.shape == (count, channels["AB".index(target)], side, side)
        assert translations.abs().max() <= 1
    for image_name, image in system.sample(images).items():
        assert image.shape == (count, channels["AB".index(image_name[-1])], side, side), image_name


# SimGAN and feature loss + GAN


@pytest.mark.parametrize(("direction", "source", "target"), [("A2B", "A", "B"), ("B2A", "B", "A")])
def test_simgan_equals_its_formula(direction, source: str, target: str) -> None:
    recipe = simgan(direction=direction, self_regularization_weight=7.0, adversarial_weight=1.5).swap(TINY)
    system = system_of(recipe)
    assert set(system.networks) == {f"G_{source}{target}", f"D_{target}"}
    assert [phase.name for phase in system.phases] == ["D", "G"]
    batch = batch_of(recipe, count=2)
    D, fake = system.networks[f"D_{target}"], system.networks[f"G_{source}{target}"](batch[source])
    expected = {
        f"D/D_{target}": 0.5 * ((D(batch[target]) - 1).square().mean() + D(fake).square().mean()),
        f"G/adversarial_{target}": 1.5 * (D(fake) - 1).square().mean(),
        "G/self_regularization": 7 * (fake - batch[source]).abs().mean(),
    }
    torch.testing.assert_close(losses_of(system, batch), expected, rtol=1e-4, atol=1e-5)


def test_feature_gan_is_simgan_with_a_feature_distance() -> None:
    recipe = TINY_RECIPES["feature_gan"]
    system = system_of(recipe)
    batch = batch_of(recipe, count=2)
    term = next(term for term in system.objective.terms if term.name == "self_regularization")
    distance = image_losses.get("features")(features=lambda: term.value.extract, layers=("blocks.1",), side=32)
    fake = system.networks["G_AB"](batch["A"])
    losses = losses_of(system, batch)
    torch.testing.assert_close(losses["G/self_regularization"], 10 * distance(fake, batch["A"]))
    assert set(feature_gan().diff(simgan())) >= {"self_regularization_loss.name"}
    assert feature_gan().resolve().system.parameters["self_regularization_loss"].parameters["layers"] == ("relu4_2",)
    assert not any("efficientnet" in key or "vgg" in key for key in system.networks)


def test_without_the_adversarial_term_simgan_has_no_discriminator() -> None:
    system = system_of(simgan(adversarial_weight=0.0).swap(TINY))
    assert set(system.networks) == {"G_AB"}
    assert not system.pools
    calls = count_calls(system.networks)
    losses_of(system, batch_of(simgan().swap(TINY)))
    assert calls == {"G_AB": [1]}


def test_simgan_requires_equal_channels() -> None:
    with pytest.raises(RecipeError, match=r"self_regularization_weight is 10\.0, but A has 1 channels and B has 3"):
        simgan(data={"channels_A": 1}).swap(TINY).check()


# BiGAN


def test_bigan_equals_its_formula() -> None:
    recipe = bigan(adversarial_weight=2.0).swap(TINY)
    system = system_of(recipe)
    batch = batch_of(recipe, count=2)
    A, B = batch["A"], batch["B"]
    G_AB, G_BA, D = (system.networks[name] for name in ("G_AB", "G_BA", "D"))
    from_A, from_B = torch.cat([A, G_AB(A)], 1), torch.cat([G_BA(B), B], 1)
    expected = {
        "D/D": 0.5 * ((D(from_A) - 1).square().mean() + D(from_B).square().mean()),
        "G/adversarial_B": 2 * D(from_A).square().mean(),
        "G/adversarial_A": 2 * (D(from_B) - 1).square().mean(),
    }
    torch.testing.assert_close(losses_of(system, batch), expected, rtol=1e-4, atol=1e-5)
    calls = count_calls(system.networks)
    losses_of(system, batch)
    assert calls == {"G_AB": [2], "G_BA": [2], "D": [4, 2, 2]}


# CoGAN


@given(side=st.sampled_from([8, 16, 32, 64]), own=st.integers(1, 4), count=st.integers(2, 3))
def test_coupled_networks_have_matching_shapes(side: int, own: int, count: int) -> None:
    doublings = {8: 1, 16: 2, 32: 3, 64: 4}[side]
    if own > doublings:
        for make in (CoupledGenerator, CoupledDiscriminator):
            with pytest.raises(
                ValueError, match=f"own_layers is {own}; for images of {side} pixels it must be 1 to {doublings}"
            ):
                make(3, 1, side, width=2, own_layers=own)
        return
    G = CoupledGenerator(3, 1, side, width=2, latent_size=5, own_layers=own)
    D = CoupledDiscriminator(3, 1, side, width=2, own_layers=own)
    fake_A, fake_B = G(torch.rand(count, 5))
    assert fake_A.shape == (count, 3, side, side)
    assert fake_B.shape == (count, 1, side, side)
    assert [logits.shape for logits in D(fake_A, fake_B)] == [(count, 1, 1, 1)] * 2


@pytest.mark.parametrize("side", [4, 12, 48, 100])
def test_unsupported_sides_of_coupled_networks_are_refused(side: int) -> None:
    with pytest.raises(
        RecipeError, match=f"data.crop_size is {side}; coupled networks produce images of 8, 16, 32, 64"
    ):
        cogan(data={"crop_size": side, "load_size": 200}).check()


def test_tied_layers_are_one_module() -> None:
    """A loss on domain A has a gradient for the tied layers and for those of A, but not for those of B."""
    recipe = TINY_RECIPES["cogan"]
    system = system_of(recipe)
    G, D = system.networks["G"], system.networks["D"]
    latents = torch.rand(2, 100)
    G(latents)[0].square().mean().backward()
    assert all(p.grad is not None for p in G.tied.parameters())
    assert all(p.grad is None for p in G.own_B.parameters())
    batch = batch_of(recipe, count=2)
    D(batch["A"], batch["B"])[1].mean().backward()
    assert all(p.grad is not None for p in D.tied.parameters())
    assert all(p.grad is None for p in D.own_A.parameters())
    total = sum(p.numel() for p in G.parameters())
    assert total == sum(p.numel() for part in (G.tied, G.own_A, G.own_B) for p in part.parameters())


def test_cogan_equals_its_formula() -> None:
    recipe = TINY_RECIPES["cogan"]
    system = system_of(recipe)
    batch = batch_of(recipe, count=3)
    bce = nn.BCEWithLogitsLoss()
    torch.manual_seed(5)
    latents = torch.rand(3, 100) * 2 - 1
    fake_A, fake_B = system.networks["G"](latents)
    on_fake, on_real = system.networks["D"](fake_A, fake_B), system.networks["D"](batch["A"], batch["B"])
    expected: dict[str, torch.Tensor] = {}
    for index, domain in enumerate("AB"):
        real, fake = on_real[index], on_fake[index]
        expected[f"D/D_{domain}"] = 0.5 * (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)))
        expected[f"G/adversarial_{domain}"] = bce(fake, torch.ones_like(fake))
    torch.manual_seed(5)
    torch.testing.assert_close(losses_of(system, batch), expected, rtol=1e-4, atol=1e-5)


def test_wgan_gp_penalizes_both_of_cogans_discriminators() -> None:
    losses = {}
    for weight in (0.0, 5.0):
        system = system_of(TINY_RECIPES["cogan"].swap(adversarial_loss={"name": "wgan_gp", "penalty_weight": weight}))
        for network in system.networks.values():
            network.eval()
        losses[weight] = seeded_losses(system, batch_of(TINY_RECIPES["cogan"], count=2))
    for name in ("D/D_A", "D/D_B"):
        assert losses[5.0][name] > losses[0.0][name] + 1e-3


def test_the_latent_search_recovers_a_rendered_image() -> None:
    """The more steps the search takes, the closer its result is to an image that has a latent."""
    recipe = TINY_RECIPES["cogan"].swap({"coupled_generator.latent_size": 4, "initializer.std": 0.2})
    distances = []
    for steps in (1, 20, 300):
        system = system_of(recipe.swap(search_steps=steps))
        system.networks["G"].eval()
        generator = torch.Generator().manual_seed(3)
        latents = torch.rand(2, 4, generator=generator) * 2 - 1
        with torch.no_grad():
            image_A, image_B = system.networks["G"](latents)
            rec_A, fake_B = system.directions["A2B"].render(image_A)
        distances.append(float((rec_A - image_A).square().mean()))
    with torch.no_grad():
        start = float((image_A - system.networks["G"](torch.zeros(2, 4))[0]).square().mean())
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.02 * start
    assert (fake_B - image_B).square().mean() < 0.05 * (image_B - image_A).square().mean()


def test_the_latent_search_is_batch_invariant() -> None:
    system = system_of(TINY_RECIPES["cogan"].swap(search_steps=10))
    system.networks["G"].eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    together = system.directions["A2B"](images)
    alone = torch.cat([system.directions["A2B"](image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


# Gatys


def test_gram_matrices_equal_values_computed_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels, two positions
    torch.testing.assert_close(gram_matrices(features), torch.tensor([[[2.5, 1.5], [1.5, 4.5]]]))


def test_the_style_is_the_mean_over_all_images_of_B(tiny) -> None:
    recipe = TINY_RECIPES["gatys"]
    batch = batch_of(recipe, count=3)
    together, apart = system_of(recipe), system_of(recipe)
    together.forward(batch)
    for index in range(3):
        apart.forward({"A": batch["A"][:1], "B": batch["B"][index : index + 1]})
    assert together.style.images_seen == apart.style.images_seen == 3
    for (name, one), (_, other) in zip(together.style.named_buffers(), apart.style.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)
    expected = gram_matrices(together.style.features(batch["B"], ("bn1",))["bn1"]).sum(0)
    torch.testing.assert_close(together.style.gram_0_0, expected)


@pytest.mark.parametrize("start", ["content", "noise"])
def test_style_transfer_decreases_its_loss_on_every_level(start: str) -> None:
    recipe = TINY_RECIPES["gatys"].swap(start=start, steps=12, levels=2)
    system = system_of(recipe)
    system.forward(batch_of(recipe, seed=1))
    image = batch_of(recipe.swap({"data.crop_size": 128, "data.load_size": 128}), seed=2)["A"]
    result = system.directions["A2B"](image)
    assert result.shape == image.shape
    assert result.abs().max() <= 1
    assert len(system.style.losses) == 2
    for history in system.style.losses:
        assert history[-1] < 0.9 * history[0]
    torch.testing.assert_close(result, system.directions["A2B"](image))  # noise also depends on the seed only


def test_content_loss_alone_recovers_the_content_from_noise() -> None:
    recipe = TINY_RECIPES["gatys"].swap(start="noise", style_weight=0.0, steps=60, levels=1, content_layer="conv_stem")
    system = system_of(recipe)
    batch = batch_of(recipe, seed=3)  # seed 0 would give the noise that it starts from
    system.forward(batch)
    system.directions["A2B"](batch["A"])
    assert system.style.losses[0][-1] < 0.02 * system.style.losses[0][0]


def test_the_style_of_the_image_itself_does_not_change_it() -> None:
    recipe = TINY_RECIPES["gatys"].swap(levels=1)
    system = system_of(recipe)
    batch = batch_of(recipe)
    system.forward({"A": batch["A"], "B": batch["A"]})
    torch.testing.assert_close(system.directions["A2B"](batch["A"]), batch["A"], atol=1e-2, rtol=0)
    other = system_of(recipe)
    other.forward({"A": batch["A"], "B": batch["B"]})
    assert (other.directions["A2B"](batch["A"]) - batch["A"]).abs().max() > 0.05  # another style changes it


def test_style_layers_without_spatial_positions_are_refused() -> None:
    with pytest.raises(RecipeError, match="'classifier' has no spatial dimensions for a Gram matrix"):
        TINY_RECIPES["gatys"].swap(style_layers=["classifier"]).check()


def test_translation_before_any_style_is_an_error() -> None:
    system = system_of(TINY_RECIPES["gatys"])
    with pytest.raises(ValueError, match="there is no style yet"):
        system.directions["A2B"](torch.zeros(1, 3, 32, 32))
    assert set(system.sample(batch_of(TINY_RECIPES["gatys"]))) == {"real_A", "real_B"}


# Variants of CycleGAN


def test_adversarial_cycle_judges_reconstructions() -> None:
    recipe = cyclegan.ablation("adversarial_cycle").swap(TINY)
    system = system_of(recipe)
    assert set(system.networks) == {"G_AB", "G_BA", "D_A", "D_B", "D_rec_A", "D_rec_B"}
    batch = batch_of(recipe, count=2)
    A, B = batch["A"], batch["B"]
    G_AB, G_BA = system.networks["G_AB"], system.networks["G_BA"]
    rec_A, rec_B = G_BA(G_AB(A)), G_AB(G_BA(B))
    D_rec_A, D_rec_B = system.networks["D_rec_A"], system.networks["D_rec_B"]
    losses = losses_of(system, batch)
    assert not any("cycle" in name for name in losses)
    torch.testing.assert_close(losses["G/adversarial_rec_A"], (D_rec_A(rec_A) - 1).square().mean())
    torch.testing.assert_close(losses["G/adversarial_rec_B"], (D_rec_B(rec_B) - 1).square().mean())
    expected = 0.5 * ((D_rec_A(A) - 1).square().mean() + D_rec_A(rec_A).square().mean())
    torch.testing.assert_close(losses["D/D_rec_A"], expected)
    expected = 0.5 * ((D_rec_B(B) - 1).square().mean() + D_rec_B(rec_B).square().mean())
    torch.testing.assert_close(losses["D/D_rec_B"], expected)


def test_alternating_steps_equal_those_of_the_lua_code() -> None:
    """Four optimizers step in the order G_AB, D_B, G_BA, D_A; the step of G_BA already uses the updated G_AB."""
    recipe = cyclegan(alternating=True, discriminator_factor=1.0, identity_weight=5.0, image_pool="none").swap(TINY)
    system, by_hand = system_of(recipe), system_of(recipe)
    for network in (*system.networks.values(), *by_hand.networks.values()):
        network.double()
    batch = batch_of(recipe, dtype=torch.float64)
    A, B = batch["A"], batch["B"]

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    class Constant:
        def multiplier(self, epoch: int, epochs: int) -> float:
            return 1.0

    Trainer(system, optimizer=sgd, scheduler=Constant(), epochs=1).step(batch)
    networks = by_hand.networks
    for source, target, real_x, real_y in (("A", "B", A, B), ("B", "A", B, A)):
        G, F, D = networks[f"G_{source}{target}"], networks[f"G_{target}{source}"], networks[f"D_{target}"]
        fake = G(real_x)
        loss = (D(fake) - 1).square().mean() + 5 * (G(real_y) - real_y).abs().mean()
        loss = loss + 10 * (F(fake) - real_x).abs().mean() + 10 * (G(F(real_y)) - real_y).abs().mean()
        step_by_hand(G, loss)
        step_by_hand(D, (D(real_y) - 1).square().mean() + D(fake.detach()).square().mean())
    for name, network in system.networks.items():
        for ours, theirs in zip(network.parameters(), networks[name].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


def step_by_hand(network: nn.Module, loss: torch.Tensor) -> None:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 0.1 * gradient


def test_fidelity_chooses_between_the_documented_differences() -> None:
    assert cyclegan(fidelity="paper").diff(cyclegan()) == {}
    assert cyclegan(fidelity="pytorch").diff(cyclegan()) == {
        "identity_weight": (5.0, 0.0),
        "scheduler.zero": ("last", "after"),
    }
    assert cyclegan(fidelity="lua").diff(cyclegan()) == {
        "identity_weight": (5.0, 0.0),
        "alternating": (True, False),
        "discriminator_factor": (1.0, 0.5),
        "generator.norm": ("instance_affine", "instance"),
        "generator.blocks": (6, 9),
        "discriminator.norm": ("instance_affine", "instance"),
        "discriminator.padding": (2, 1),
        "scheduler.zero": ("lua", "after"),
        "data.load_size": (143, 286),
        "data.crop_size": (128, 256),
    }


def test_explicit_settings_override_those_of_fidelity() -> None:
    recipe = cyclegan(fidelity="lua", identity_weight=0.0, generator="unet", data={"crop_size": 64})
    changed = recipe.diff(cyclegan(fidelity="lua"))
    assert changed["identity_weight"] == (0.0, 5.0)
    assert changed["generator.name"] == ("unet", "resnet")
    assert changed["data.crop_size"] == (64, 128)
    assert "data.load_size" not in changed
    with pytest.raises(RecipeError, match="cyclegan: fidelity cannot be 'lau'; it is one of paper, pytorch, lua"):
        cyclegan(fidelity="lau")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"fidelity cannot be \['lua'\]"):
        Recipe.from_base("cyclegan", {"fidelity": ["lua"]})


def test_fidelity_in_files_and_on_the_command_line() -> None:
    from_file = Recipe.from_toml('recipe = "cyclegan"\nfidelity = "lua"\nidentity_weight = 1.0')
    assert from_file.diff(cyclegan(fidelity="lua", identity_weight=1.0)) == {}
    changed = Recipe.from_toml('recipe = "cyclegan"', changes={"fidelity": "pytorch", "generator.blocks": 2})
    assert changed.diff(cyclegan(fidelity="pytorch").swap({"generator.blocks": 2})) == {}
