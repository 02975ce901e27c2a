"""CycleGAN and pix2pix: the terms of the objective, the forward passes, and which parameters receive gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.small import TINY, batch_of
from _helpers.systems import count_calls, losses_of, system_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gantoolkit
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.systems import CycleGAN, Pix2Pix

ALL_TERMS = {"adversarial_A", "adversarial_B", "cycle_A", "cycle_B", "identity_A", "identity_B"}


def test_every_term_equals_its_formula(tiny: Recipe) -> None:
    system = system_of(tiny.swap(identity_weight=[3.0, 4.0], cycle_weight=[5.0, 6.0], adversarial_weight=[1.5, 2.5]))
    batch = batch_of(tiny, count=2)
    A, B = batch["A"], batch["B"]
    G_AB, G_BA, D_A, D_B = (system.networks[name] for name in ("G_AB", "G_BA", "D_A", "D_B"))
    fake_B, fake_A = G_AB(A), G_BA(B)
    expected = {
        "G/adversarial_A": 1.5 * (D_A(fake_A) - 1).square().mean(),
        "G/adversarial_B": 2.5 * (D_B(fake_B) - 1).square().mean(),
        "G/cycle_A": 5 * (G_BA(fake_B) - A).abs().mean(),
        "G/cycle_B": 6 * (G_AB(fake_A) - B).abs().mean(),
        # The identity term of a domain: its images, through the generator whose target is that domain.
        "G/identity_A": 3 * (G_BA(A) - A).abs().mean(),
        "G/identity_B": 4 * (G_AB(B) - B).abs().mean(),
        "D/D_A": 0.5 * ((D_A(A) - 1).square().mean() + D_A(fake_A).square().mean()),
        "D/D_B": 0.5 * ((D_B(B) - 1).square().mean() + D_B(fake_B).square().mean()),
    }
    torch.testing.assert_close(losses_of(system, batch), expected, rtol=1e-4, atol=1e-5, check_device=True)


@given(
    weights=st.tuples(*[st.sampled_from([0.0, 0.5, 2.0]) for _ in range(6)]).filter(any),
    factor=st.sampled_from([2.0, 10.0]),
)
def test_scaling_a_weight_scales_its_term_and_weight_zero_removes_it(weights, factor: float) -> None:
    def build(scale: float) -> Any:
        adversarial, cycle, identity = [[scale * w for w in weights[i : i + 2]] for i in (0, 2, 4)]
        recipe = cyclegan(adversarial_weight=adversarial, cycle_weight=cycle, identity_weight=identity).swap(
            {
                "generator": {"name": "resnet", "width": 2, "blocks": 1},
                "discriminator": {"name": "pixelgan", "width": 2},
                "data.crop_size": 8,
            }
        )
        return recipe, system_of(recipe)

    recipe, system = build(1.0)
    batch = batch_of(recipe)
    losses, scaled = losses_of(system, batch), losses_of(build(factor)[1], batch)
    order = ["adversarial_A", "adversarial_B", "cycle_A", "cycle_B", "identity_A", "identity_B"]
    expected_names = {f"G/{name}" for name, weight in zip(order, weights, strict=True) if weight}
    assert {name for name in losses if name.startswith("G/")} == expected_names
    for name in expected_names:
        torch.testing.assert_close(scaled[name], factor * losses[name])
    assert {name for name in losses if name.startswith("D/")} == {
        f"D/D_{x}" for x in "AB" if f"G/adversarial_{x}" in expected_names
    }


@pytest.mark.parametrize(
    ("ablation", "discriminators", "G_AB", "G_BA"),
    [
        # The batch size of every pass through each generator; 2 stands for two independent images in one pass.
        ("identity", {"D_A", "D_B"}, [2, 1], [3]),
        ("nll", {"D_A", "D_B"}, [1, 1], [2]),
        ("gan_alone", {"D_A", "D_B"}, [1], [1]),
        ("cycle_alone", set(), [1, 1], [2]),
        ("gan_forward", {"D_A", "D_B"}, [1], [2]),
        ("gan_backward", {"D_A", "D_B"}, [1, 1], [1]),
        ("adversarial_cycle", {"D_A", "D_B", "D_rec_A", "D_rec_B"}, [1, 1], [2]),
        ("no_pool", {"D_A", "D_B"}, [1, 1], [2]),
        ("no_identity", {"D_A", "D_B"}, [1, 1], [2]),
    ],
)
def test_what_no_term_requires_is_neither_built_nor_computed(ablation, discriminators, G_AB, G_BA) -> None:
    system = system_of(cyclegan.ablation(ablation).swap(TINY))
    assert {name for name in system.networks if name.startswith("D_")} == discriminators
    calls = count_calls(system.networks)
    losses_of(system, batch_of(cyclegan().swap(TINY)))
    assert calls["G_AB"] == G_AB
    assert calls["G_BA"] == G_BA
    # One pass for the generator's term, and one for fakes and real images together.
    assert all(calls[name] == [1, 2] for name in discriminators)


def test_a_generator_that_no_term_requires_is_not_built(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    recipe = tiny.swap(adversarial_weight=[0.0, 1.0], cycle_weight=0.0)
    system = system_of(recipe)
    assert set(system.networks) == {"G_AB", "D_B"}
    assert set(system.directions) == {"A2B"}
    assert list(system.sample(batch_of(recipe))) == ["real_A", "fake_B", "real_B"]
    assert [phase.trains for phase in system.phases] == [("G_AB",), ("D_B",)]
    alternating = system_of(recipe.swap(alternating=True))
    assert [phase.trains for phase in alternating.phases] == [("G_AB",), ("D_B",)]
    run = gantoolkit.train(recipe, dataset, out=tmp_path / "run", stop_at=1)
    assert [path.stem for path in run.folder.generators.iterdir()] == ["A2B"]


def test_batch_norm_gets_separate_batches_in_the_official_order(tiny: Recipe) -> None:
    """The running statistics depend on both."""
    system = system_of(tiny.swap({"generator.norm": "batch", "identity_weight": 5.0}))
    batch, calls = batch_of(tiny), []
    for name in ("G_AB", "G_BA"):
        system.networks[name].register_forward_pre_hook(
            lambda module, inputs, name=name: calls.append((name, inputs[0]))
        )
    shared = system.forward(batch)
    order = [("G_AB", batch["A"]), ("G_BA", shared["fake_B"]), ("G_BA", batch["B"]), ("G_AB", shared["fake_A"])]
    for (name, images), (expected_name, expected_images) in zip(
        calls, [*order, ("G_AB", batch["B"]), ("G_BA", batch["A"])], strict=True
    ):
        assert name == expected_name
        assert images is expected_images


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_batched_passes_give_equal_losses(norm: str, tiny: Recipe) -> None:
    recipe = tiny.swap({"generator.norm": norm, "discriminator.norm": norm, "identity_weight": 5.0})
    batch = batch_of(recipe, count=2, dtype=torch.float64)
    results = []
    for batched in (True, False):
        system = system_of(recipe.swap(batched=batched))
        for network in system.networks.values():
            network.double()
        results.append(losses_of(system, batch))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fixture", ["tiny", "tiny_pix2pix"])
def test_gradients_reach_exactly_the_parameters_that_a_phase_trains(fixture: str, request) -> None:
    recipe = request.getfixturevalue(fixture)
    if fixture == "tiny":
        recipe = recipe.swap(identity_weight=5.0)
    system = system_of(recipe)
    batch = batch_of(recipe)
    for phase in system.phases:
        for network in system.networks.values():
            network.zero_grad()
            network.requires_grad_(True)
        shared = system.forward(batch)
        for name, network in system.networks.items():
            network.requires_grad_(name in phase.trains)
        sum(phase.losses(batch, shared).values()).backward()
        for name, network in system.networks.items():
            reached = [parameter.grad is not None for parameter in network.parameters()]
            assert all(reached) if name in phase.trains else not any(reached), (phase.name, name)


def test_discriminators_learn_from_the_pool(tiny: Recipe) -> None:
    """Fails for an implementation that passes the newest fakes to the discriminator instead."""
    system = system_of(tiny)
    pool_inputs: list[torch.Tensor] = []
    pool = system.pools["fake_B"]
    system.pools["fake_B"] = lambda fakes: pool_inputs.append(fakes.clone()) or torch.zeros_like(fakes)
    batch = batch_of(tiny)
    shared = system.forward(batch)
    D_B = system.networks["D_B"]
    loss = system.phases[1].losses(batch, shared)["D_B"]
    torch.testing.assert_close(pool_inputs[0], shared["fake_B"])
    zeros = torch.zeros_like(batch["B"])
    torch.testing.assert_close(loss, 0.5 * (D_B(zeros).square().mean() + (D_B(batch["B"]) - 1).square().mean()))
    assert pool.size == 3


def test_wgan_gp_penalizes_each_discriminator_in_proportion_to_the_weight(tiny: Recipe) -> None:
    losses = {}
    for weight in (0.0, 7.0, 14.0):
        system = system_of(tiny.swap(adversarial_loss={"name": "wgan_gp", "penalty_weight": weight}))
        torch.manual_seed(0)  # the penalty is computed at random points
        losses[weight] = losses_of(system, batch_of(tiny))
    for name in ("D/D_A", "D/D_B"):
        penalty = losses[7.0][name] - losses[0.0][name]
        assert penalty > 0
        torch.testing.assert_close(losses[14.0][name] - losses[0.0][name], 2 * penalty)


def test_domains_may_differ_in_channels(tiny: Recipe) -> None:
    recipe = tiny.swap({"data.channels_A": 1})
    system = system_of(recipe.check())
    assert isinstance(system, CycleGAN)
    shared = system.forward(batch_of(recipe))
    assert shared["fake_A"].shape[1] == 1
    assert shared["fake_B"].shape[1] == 3


def test_pix2pix_equals_its_formula(tiny_pix2pix: Recipe) -> None:
    recipe = tiny_pix2pix.swap({"generator.dropout": 0.0})
    system = system_of(recipe)
    assert isinstance(system, Pix2Pix)
    assert [phase.name for phase in system.phases] == ["D", "G"]
    for network in system.networks.values():
        network.eval()
    batch = batch_of(recipe)
    A, B = batch["A"], batch["B"]
    fake, D = system.networks["G_AB"](A), system.networks["D"]
    bce = nn.BCEWithLogitsLoss()
    on_fake, on_real = D(torch.cat([A, fake], 1)), D(torch.cat([A, B], 1))
    expected = {
        "D/D_fake": 0.5 * bce(on_fake, torch.zeros_like(on_fake)),
        "D/D_real": 0.5 * bce(on_real, torch.ones_like(on_real)),
        "G/adversarial_B": bce(on_fake, torch.ones_like(on_fake)),
        "G/image_B": 100 * (fake - B).abs().mean(),
    }
    torch.testing.assert_close(losses_of(system, batch), expected, rtol=1e-4, atol=1e-5)


def test_swapped_domains_change_every_term(tiny: Recipe) -> None:
    system = system_of(tiny.swap(identity_weight=5.0))
    batch = batch_of(tiny)
    right, wrong = losses_of(system, batch), losses_of(system, {"A": batch["B"], "B": batch["A"]})
    assert all(not torch.isclose(right[name], wrong[name]) for name in right)
