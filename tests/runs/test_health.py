"""The verdict on a run's health: each failure planted and found, and healthy runs left in peace."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from _helpers.small import make_dataset, make_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import gantoolkit
from gantoolkit.data import to_tensor
from gantoolkit.plugins import REGISTRIES
from gantoolkit.recipes import Recipe
from gantoolkit.runs.health import Finding, count_flat, examine, examine_flatness


def pictures(count: int, first: int = 0) -> Tensor:
    return torch.stack([to_tensor(make_image(first + number, (32, 32))) for number in range(count)])


def wrong(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if finding.state == "wrong"}


def samples_of(translate: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What a system shows of one direction: darker inputs, brighter truths, and what `translate` makes of the inputs."""
    inputs = pictures(4) * 0.5 - 0.4
    return {"real_A": inputs, "real_B": pictures(4, 50) * 0.5 + 0.4, "fake_B": translate(inputs)}


PLANTED: dict[str, tuple[Callable[[Tensor], Tensor], set[str]]] = {
    "handed back": (lambda images: images.clone(), {"A → B: output equals input"}),
    "handed back, a little darker": (lambda images: images - 0.02, {"A → B: output equals input"}),
    "handed back, with noise": (
        lambda images: images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1)),
        {"A → B: output equals input"},
    ),
    "negative": (lambda images: -images, {"A → B: inverted colors"}),
    "a weak negative": (lambda images: 0.6 - 0.3 * images, {"A → B: inverted colors"}),
    "one image": (lambda images: pictures(1, 90).expand_as(images), {"A → B: collapse"}),
    "one image, hardly changed": (
        lambda images: pictures(1, 90).expand_as(images) + 0.05 * images,
        {"A → B: collapse"},
    ),
    "one color": (lambda images: torch.full_like(images, 0.3), {"A → B: collapse"}),
    "brighter": (lambda images: images + 0.6, set()),
    "other colors": (lambda images: images.flip(1) * 0.8 + 0.4, set()),
    "another image": (lambda images: pictures(len(images), 50), set()),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_samples_show_is_named_and_nothing_else(planted: str) -> None:
    translate, expected = PLANTED[planted]
    findings = examine(samples_of(translate), [])
    assert wrong(findings) == expected
    assert {finding.name for finding in findings} == {
        "A → B: output equals input",
        "A → B: inverted colors",
        "A → B: collapse",
    }
    for finding in findings:
        assert any(character.isdigit() for character in finding.evidence)
        assert bool(finding.advice) == (finding.state == "wrong")


@given(shift=st.floats(0.1, 0.5), gain=st.floats(0.5, 1.2), seed=st.integers(0, 40))
def test_translations_that_keep_the_picture_and_change_its_tone_are_healthy(
    shift: float, gain: float, seed: int
) -> None:
    inputs = pictures(3, seed) * 0.6
    samples = {"real_A": inputs, "real_B": inputs * gain + shift, "fake_B": (inputs * gain + shift).clamp(-1, 1)}
    assert not wrong(examine(samples, []))


def test_what_cannot_be_told_is_said_to_be_unknown() -> None:
    one = examine({"real_A": pictures(1), "fake_B": pictures(1, 9)}, [])
    assert {finding.name: finding.state for finding in one}["A → B: collapse"] == "unknown"
    same = pictures(1).expand(3, -1, -1, -1)
    alike = examine({"real_A": same, "fake_B": pictures(1, 9).expand(3, -1, -1, -1)}, [])
    assert {finding.name: finding.state for finding in alike}["A → B: collapse"] == "unknown"
    channels = examine({"real_A": pictures(2)[:, :1], "fake_B": pictures(2, 9)}, [])
    assert {finding.name: finding.state for finding in channels}["A → B: output equals input"] == "unknown"
    assert examine_flatness(0, 0).state == "unknown"


@pytest.mark.parametrize(
    ("losses", "state"),
    [
        ([0.5] + [0.001] * 12, "wrong"),
        ([0.5, 0.4, 0.3] + [0.25] * 12, "healthy"),
        ([0.5] + [0.001] * 8, "unknown"),
        ([0.5] * 6 + [-0.2] * 6, "unknown"),
        # A discriminator may win for a while; the last rows decide.
        ([0.5] + [0.001] * 12 + [0.2] * 5, "healthy"),
    ],
    ids=["next to nothing", "as it should be", "young", "without a least value", "recovered"],
)
def test_a_discriminators_losses(losses: list[float], state: str) -> None:
    rows = [{"step": step, "D/total": loss, "G/total": 0.0} for step, loss in enumerate(losses)]
    (finding,) = examine({}, rows)
    assert (finding.name, finding.state) == ("discriminator saturated (D)", state)


def test_one_of_two_discriminators_that_has_won_is_named() -> None:
    rows = [{"D/D_A": 0.3, "D/D_B": loss, "D/total": 0.3 + loss} for loss in [0.5] + [0.001] * 12]
    assert wrong(examine({}, rows)) == {"discriminator saturated (D_B)"}


def test_flat_crops_are_counted() -> None:
    images = pictures(4)
    images[1] = 0.25
    images[2] = 0.25 + 0.001 * images[2]
    assert count_flat({"A": images, "B": pictures(2)}) == 2
    assert examine_flatness(2, 100).state == "healthy"
    assert examine_flatness(6, 100).state == "wrong"


class Planted(nn.Module):
    """A generator with one failure: it has a weight, so that it is trained like any other, and no use for it."""

    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int, *, failure: str = "copy") -> None:
        super().__init__()
        self.failure = failure
        self.weight = nn.Conv2d(1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        made = {"copy": images, "negative": -images, "constant": torch.zeros_like(images)}[self.failure]
        return made + 0 * self.weight.weight.sum()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the generator that has failures, for as long as the test runs."""
    generators = REGISTRIES["generators"]
    monkeypatch.setattr(generators, "_session", dict(generators._session))
    generators.register("planted")(Planted)
    return "planted"


def verdicts(report: Path) -> Mapping[str, list[str]]:
    """What a run's page says, by state."""
    rows = re.findall(r'<tr class="(\w+)"><th>\w+</th><td>([^<]+)</td>', report.read_text())
    return {state: [name for found, name in rows if found == state] for state in ("wrong", "unknown", "healthy")}


@pytest.mark.parametrize(
    ("failure", "named"),
    [("copy", "output equals input"), ("negative", "inverted colors"), ("constant", "collapse")],
)
def test_a_run_with_a_planted_failure_names_it_on_its_page(
    failure: str, named: str, planted: str, tiny: Recipe, dataset: Path, tmp_path: Path
) -> None:
    recipe = tiny.swap({"generator": {"name": planted, "failure": failure}})
    run = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu")
    assert set(verdicts(run.folder.report)["wrong"]) == {f"A → B: {named}", f"B → A: {named}"}


def test_a_run_whose_discriminators_have_won_says_so(planted: str, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    # Fakes of one gray forever: nothing is easier to tell from pictures.
    recipe = tiny.swap(
        {
            "generator": {"name": planted, "failure": "constant"},
            "discriminator": {"name": "patchgan", "width": 16, "layers": 1},
            "optimizer.lr": 0.002,
            "scheduler": "cosine",
            "training.log_every": 5,
            "training.epochs": 50,
            "training.sample_every": 1000,
            "training.checkpoint_every": 1000,
        }
    )
    run = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu")
    assert {"discriminator saturated (D_A)", "discriminator saturated (D_B)"} <= set(
        verdicts(run.folder.report)["wrong"]
    )


def test_a_run_on_flat_images_says_so(tiny: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "images", count_A=4, count_B=4)
    for number, path in enumerate(sorted((data / "trainA").iterdir())[:2]):
        Image.new("RGB", (40, 36), (90 * number, 60, 30)).save(path)
    run = gantoolkit.train(tiny, data, tmp_path / "run", device="cpu")
    assert verdicts(run.folder.report)["wrong"] == ["flat batches"]


def test_a_healthy_run_raises_no_alarm(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(
        tiny.swap({"training.log_every": 1, "generator.width": 8}), dataset, tmp_path / "run", device="cpu"
    )
    found = verdicts(run.folder.report)
    assert not found["wrong"]
    assert len(found["healthy"]) >= 7
    assert "No problem" in run.folder.report.read_text()
