"""The table of terms: what is left out, what is computed, and in how many forward passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gantoolkit.errors import PluginError
from gantoolkit.systems.objectives import Objective, Term, Translation, run_batched

TRANSLATIONS = [
    Translation("fake_B", "G_AB", "A"),
    Translation("rec_A", "G_BA", "fake_B"),
    Translation("fake_A", "G_BA", "B"),
    Translation("rec_B", "G_AB", "fake_A"),
    Translation("idt_B", "G_AB", "B"),
]
TERMS = {
    "gan_B": lambda fake_B: fake_B.mean(),
    "cycle_A": lambda rec_A, A: (rec_A - A).abs().mean(),
    "cycle_B": lambda rec_B, B: (rec_B - B).abs().mean(),
    "identity_B": lambda idt_B, B: (idt_B - B).abs().mean(),
}
IMAGES = {"gan_B": {"fake_B"}, "cycle_A": {"fake_B", "rec_A"}, "cycle_B": {"fake_A", "rec_B"}, "identity_B": {"idt_B"}}


class Counting(nn.Module):
    """Scales images and records the sizes of its batches."""

    def __init__(self, factor: float, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.factor, self.sizes = factor, list[int]()
        self.norm = nn.BatchNorm2d(1) if batch_norm else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        return self.norm(images * self.factor)


def draw_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {domain: torch.randn(2, 1, 4, 4, generator=generator) for domain in "AB"}


@given(weights=st.fixed_dictionaries({name: st.sampled_from([0.0, 1.0, 2.5]) for name in TERMS}))
def test_only_what_weighted_terms_need_is_computed(weights: dict[str, float]) -> None:
    objective = Objective([Term(name, weights[name], TERMS[name]) for name in TERMS], TRANSLATIONS)
    networks, batch = {"G_AB": Counting(2.0), "G_BA": Counting(-1.0)}, draw_batch()
    translations = objective.translate(networks, batch)
    active = [name for name in TERMS if weights[name]]
    assert set(translations) == set().union(*(IMAGES[name] for name in active))
    losses = objective.losses(networks, {**batch, **translations})
    assert list(losses) == active
    known = {**batch, **translations}
    for term in objective.terms:
        expected = weights[term.name] * TERMS[term.name](*(known[name] for name in term.needs))
        torch.testing.assert_close(losses[term.name], expected)


def test_independent_translations_are_one_batch() -> None:
    objective = Objective([Term(name, 1.0, value) for name, value in TERMS.items()], TRANSLATIONS)
    networks = {"G_AB": Counting(2.0), "G_BA": Counting(-1.0)}
    batch = draw_batch()
    batched = objective.translate(networks, batch)
    assert networks["G_AB"].sizes == [4, 2]
    assert networks["G_BA"].sizes == [4]
    single = objective.translate(networks, batch, batched=False)
    assert all(torch.equal(batched[name], single[name]) for name in single)


def test_batch_norm_prevents_batching() -> None:
    network, images = Counting(1.0, batch_norm=True), torch.randn(2, 1, 4, 4)
    run_batched(network, [images, images])
    assert network.sizes == [2, 2]


def test_a_term_that_needs_something_unknown_is_named() -> None:
    objective = Objective([Term("cycle_A", 1.0, lambda rec_C: rec_C)], TRANSLATIONS)
    with pytest.raises(PluginError, match="term 'cycle_A' needs 'rec_C', which is not an image or a network"):
        objective.losses({}, draw_batch())


def test_needs_can_be_named_for_functions_with_other_parameters() -> None:
    objective = Objective([Term("image", 1.0, nn.functional.l1_loss, needs=("fake_B", "B"))], TRANSLATIONS)
    assert [translation.image for translation in objective.translations] == ["fake_B"]
    assert objective.needs == {"G_AB", "A", "fake_B", "B"}


@pytest.mark.parametrize(
    ("translations", "missing"),
    [
        ([Translation("fake_B", "G_AC", "A")], "G_AC"),
        ([Translation("fake_B", "G_AB", "C")], "C"),
        ([Translation("fake_B", "G_AB", "fake_A"), Translation("fake_A", "G_BA", "B")], "fake_A"),
    ],
    ids=["unknown generator", "unknown source", "source listed later"],
)
def test_translation_that_cannot_be_computed_is_named(translations: list[Translation], missing: str) -> None:
    objective = Objective([Term("gan_B", 1.0, TERMS["gan_B"])], translations)
    with pytest.raises(PluginError, match=f"translation 'fake_B' needs '{missing}'"):
        objective.translate({"G_AB": Counting(1.0), "G_BA": Counting(1.0)}, draw_batch())
