"""The health check of a run: it detects each simulated failure, and reports none for healthy runs."""

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


def make_images(count: int, first: int = 0) -> Tensor:
    return torch.stack([to_tensor(make_image(first + index, (32, 32))) for index in range(count)])


def failures(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if finding.state == "wrong"}


def samples_of(translate: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Samples of one direction: dark inputs, bright targets, and the translated inputs."""
    inputs = make_images(4) * 0.5 - 0.4
    return {"real_A": inputs, "real_B": make_images(4, 50) * 0.5 + 0.4, "fake_B": translate(inputs)}


TRANSLATIONS: dict[str, tuple[Callable[[Tensor], Tensor], set[str]]] = {
    "copy": (lambda images: images.clone(), {"A → B: output equals input"}),
    "slightly darker copy": (lambda images: images - 0.02, {"A → B: output equals input"}),
    "copy with noise": (
        lambda images: images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1)),
        {"A → B: output equals input"},
    ),
    "negative": (lambda images: -images, {"A → B: inverted colors"}),
    "negative of low contrast": (lambda images: 0.6 - 0.3 * images, {"A → B: inverted colors"}),
    "one image": (lambda images: make_images(1, 90).expand_as(images), {"A → B: collapse"}),
    "one image with a trace of the input": (
        lambda images: make_images(1, 90).expand_as(images) + 0.05 * images,
        {"A → B: collapse"},
    ),
    "one color": (lambda images: torch.full_like(images, 0.3), {"A → B: collapse"}),
    "brighter": (lambda images: images + 0.6, set()),
    "other colors": (lambda images: images.flip(1) * 0.8 + 0.4, set()),
    "another image": (lambda images: make_images(len(images), 50), set()),
}


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_samples_show_exactly_the_expected_failures(name: str) -> None:
    translate, expected = TRANSLATIONS[name]
    findings = examine(samples_of(translate), [])
    assert failures(findings) == expected
    assert {finding.name for finding in findings} == {
        "A → B: output equals input",
        "A → B: inverted colors",
        "A → B: collapse",
    }
    for finding in findings:
        assert any(character.isdigit() for character in finding.evidence)
        assert bool(finding.advice) == (finding.state == "wrong")


@given(shift=st.floats(0.1, 0.5), gain=st.floats(0.5, 1.2), seed=st.integers(0, 40))
def test_changed_brightness_and_contrast_is_healthy(shift: float, gain: float, seed: int) -> None:
    inputs = make_images(3, seed) * 0.6
    samples = {"real_A": inputs, "real_B": inputs * gain + shift, "fake_B": (inputs * gain + shift).clamp(-1, 1)}
    assert not failures(examine(samples, []))


def test_insufficient_samples_give_unknown() -> None:
    single = examine({"real_A": make_images(1), "fake_B": make_images(1, 9)}, [])
    assert {finding.name: finding.state for finding in single}["A → B: collapse"] == "unknown"
    image = make_images(1).expand(3, -1, -1, -1)
    equal = examine({"real_A": image, "fake_B": make_images(1, 9).expand(3, -1, -1, -1)}, [])
    assert {finding.name: finding.state for finding in equal}["A → B: collapse"] == "unknown"
    other_channels = examine({"real_A": make_images(2)[:, :1], "fake_B": make_images(2, 9)}, [])
    assert {finding.name: finding.state for finding in other_channels}["A → B: output equals input"] == "unknown"
    assert examine_flatness(0, 0).state == "unknown"


@pytest.mark.parametrize(
    ("losses", "state"),
    [
        ([0.5] + [0.001] * 12, "wrong"),
        ([0.5, 0.4, 0.3] + [0.25] * 12, "healthy"),
        ([0.5] + [0.001] * 8, "unknown"),
        ([0.5] * 6 + [-0.2] * 6, "unknown"),
        # A discriminator may be saturated for a while; the last rows decide.
        ([0.5] + [0.001] * 12 + [0.2] * 5, "healthy"),
    ],
    ids=["almost zero", "normal", "too few rows", "no lower bound", "recovered"],
)
def test_losses_of_a_discriminator(losses: list[float], state: str) -> None:
    rows = [{"step": step, "D/total": loss, "G/total": 0.0} for step, loss in enumerate(losses)]
    (finding,) = examine({}, rows)
    assert (finding.name, finding.state) == ("discriminator saturated (D)", state)


def test_saturated_one_of_two_discriminators_is_named() -> None:
    rows = [{"D/D_A": 0.3, "D/D_B": loss, "D/total": 0.3 + loss} for loss in [0.5] + [0.001] * 12]
    assert failures(examine({}, rows)) == {"discriminator saturated (D_B)"}


def test_flat_crops_are_counted() -> None:
    images = make_images(4)
    images[1] = 0.25
    images[2] = 0.25 + 0.001 * images[2]
    assert count_flat({"A": images, "B": make_images(2)}) == 2
    assert examine_flatness(2, 100).state == "healthy"
    assert examine_flatness(6, 100).state == "wrong"


class FailingGenerator(nn.Module):
    """A generator with one failure. Its weight has no effect; without one it could not be trained."""

    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int, *, failure: str = "copy") -> None:
        super().__init__()
        self.failure = failure
        self.weight = nn.Conv2d(1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        output = {"copy": images, "negative": -images, "constant": torch.zeros_like(images)}[self.failure]
        return output + 0 * self.weight.weight.sum()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which `FailingGenerator` is registered during a test."""
    generators = REGISTRIES["generators"]
    monkeypatch.setattr(generators, "_session", dict(generators._session))
    generators.register("failing")(FailingGenerator)
    return "failing"


def read_findings(report: Path) -> Mapping[str, list[str]]:
    """The names of the findings in a report, by state."""
    rows = re.findall(r'<tr class="(\w+)"><th>\w+</th><td>([^<]+)</td>', report.read_text())
    return {
        state: [name for row_state, name in rows if row_state == state] for state in ("wrong", "unknown", "healthy")
    }


@pytest.mark.parametrize(
    ("failure", "finding"),
    [("copy", "output equals input"), ("negative", "inverted colors"), ("constant", "collapse")],
)
def test_report_names_the_failure_of_a_generator(
    failure: str, finding: str, failing: str, tiny: Recipe, dataset: Path, tmp_path: Path
) -> None:
    recipe = tiny.swap({"generator": {"name": failing, "failure": failure}})
    run = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu")
    assert set(read_findings(run.folder.report)["wrong"]) == {f"A → B: {finding}", f"B → A: {finding}"}


def test_report_names_saturated_discriminators(failing: str, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    # Fakes are always gray, so they are easy to distinguish from images.
    recipe = tiny.swap(
        {
            "generator": {"name": failing, "failure": "constant"},
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
        read_findings(run.folder.report)["wrong"]
    )


def test_report_names_flat_images(tiny: Recipe, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "images", count_A=4, count_B=4)
    for index, path in enumerate(sorted((data / "trainA").iterdir())[:2]):
        Image.new("RGB", (40, 36), (90 * index, 60, 30)).save(path)
    run = gantoolkit.train(tiny, data, tmp_path / "run", device="cpu")
    assert read_findings(run.folder.report)["wrong"] == ["flat batches"]


def test_report_of_a_healthy_run_names_no_failure(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    run = gantoolkit.train(
        tiny.swap({"training.log_every": 1, "generator.width": 8}), dataset, tmp_path / "run", device="cpu"
    )
    findings = read_findings(run.folder.report)
    assert not findings["wrong"]
    assert len(findings["healthy"]) >= 7
    assert "No problem" in run.folder.report.read_text()
