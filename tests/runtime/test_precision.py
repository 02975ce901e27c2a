import copy

import numpy as np
import pytest
import torch
from _helpers.small import batch_of
from torch import Tensor, nn

import gantoolkit
from gantoolkit.errors import RecipeError
from gantoolkit.layers.convolution import Conv3x3
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.recipes.building import build_system
from gantoolkit.runtime.memory_format import set_memory_format
from gantoolkit.runtime.precision import backend_flags, set_precision
from gantoolkit.runtime.rounding import round_in_place, shared_weights
from gantoolkit.training import Trainer, build_trainer

CPU = torch.device("cpu")


@pytest.fixture
def medium() -> Recipe:
    """A recipe whose networks are wide enough for rounding errors to average out."""
    return cyclegan(
        generator={"name": "resnet", "width": 16, "blocks": 2}, discriminator={"name": "patchgan", "width": 16}
    ).swap({"identity_weight": 5.0, "data.load_size": 64, "data.crop_size": 64, "initializer.std": 0.1})


def losses_of(trainer: Trainer, recipe: Recipe, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return trainer.step({domain: images.to(dtype) for domain, images in batch_of(recipe, count=2).items()}).losses


class TestTolerance:
    """Each precision against float64, on the losses of a whole CycleGAN step, with D after G."""

    @pytest.mark.parametrize(("name", "bound"), [("fp32", 1e-5), ("tf32", 1e-5), ("bf16", 3e-2), ("fp16", 4e-3)])
    def test_on_a_cpu(self, name: str, bound: float, medium: Recipe) -> None:
        self.check(name, bound, medium, CPU)

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize(("name", "bound"), [("fp32", 1e-5), ("tf32", 4e-3), ("bf16", 3e-2), ("fp16", 4e-3)])
    def test_on_cuda(self, name: str, bound: float, medium: Recipe) -> None:
        self.check(name, bound, medium, torch.device("cuda"))

    def check(self, name: str, bound: float, recipe: Recipe, device: torch.device) -> None:
        exact = build_trainer(recipe.resolve(), CPU)
        for network in exact.system.networks.values():
            network.double()
        expected = losses_of(exact, recipe, torch.float64)
        trainer = build_trainer(recipe.swap({"training.precision": name}).resolve(), device)
        batch = {domain: images.to(device) for domain, images in batch_of(recipe, count=2).items()}
        with backend_flags(trainer.precision, try_algorithms=False):
            result = trainer.step(batch)
        assert result.skipped is None
        for loss, value in result.losses.items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(
                value.double().cpu(), expected[loss], rtol=bound, atol=0, msg=lambda text, loss=loss: f"{loss}: {text}"
            )


class Spy(nn.Conv2d):
    """Record the dtype of the output before its conversion to float32."""

    def forward(self, features: Tensor) -> Tensor:
        output = super().forward(features)
        self.output_dtype = output.dtype
        return output


@pytest.mark.parametrize(
    ("name", "inside"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_network_computes_in_precision_and_returns_float32(name, inside) -> None:
    layer = Spy(3, 3, 1)
    set_precision(name, layer, CPU)
    output = layer(torch.rand(1, 3, 4, 4))
    output.sum().backward()
    assert (layer.output_dtype, output.dtype) == (inside, torch.float32)
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}


def test_copy_of_a_network_computes_with_its_own_weights() -> None:
    """An average of weights over steps is such a copy."""
    layer = Spy(3, 3, 1)
    set_precision("bf16", layer, CPU)
    copied = copy.deepcopy(layer)
    nn.init.zeros_(copied.weight)
    nn.init.zeros_(copied.bias)
    assert not copied(torch.rand(1, 3, 4, 4)).any()
    assert layer(torch.rand(1, 3, 4, 4)).any()
    assert copied.output_dtype == torch.bfloat16


def test_lists_keyword_arguments_and_integers_are_supported() -> None:
    class Heads(nn.Linear):
        def forward(self, features: list[Tensor], *, indices: Tensor) -> dict[str, Tensor]:
            assert indices.dtype == torch.int64
            return {"output": super().forward(features[0][indices])}

    for device in (CPU, torch.device("meta")):
        layer = Heads(3, 2, device=device)
        set_precision("bf16", layer, device)
        outputs = layer([torch.rand(5, 3, device=device)], indices=torch.zeros(2, dtype=torch.int64, device=device))
        assert (outputs["output"].shape, outputs["output"].dtype) == ((2, 2), torch.float32)


def test_all_outputs_become_float32() -> None:
    class Two(Spy):
        def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(features), features

    layer = Two(3, 3, 1)
    set_precision("bf16", layer, CPU)
    assert [output.dtype for output in layer(torch.rand(1, 3, 4, 4))] == [torch.float32, torch.float32]


class TestLossScaling:
    def test_loss_scaling_does_not_change_weights_in_float32(self, medium: Recipe) -> None:
        """Scaling by a power of two is exact unless values underflow."""
        plain = build_trainer(medium.resolve(), CPU)
        scaled = build_trainer(medium.resolve(), CPU)
        scaled.scalers = {name: torch.amp.GradScaler("cpu", init_scale=2.0**12) for name in scaled.optimizers}
        for trainer in (plain, scaled):
            losses_of(trainer, medium)
        for name, tensor in plain.state_dict().items():
            if name.startswith("network/"):
                torch.testing.assert_close(scaled.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)

    def test_overflow_skips_step_and_halves_scale_which_is_saved(self, tiny: Recipe) -> None:
        recipe = tiny.swap({"training.precision": "fp16"}).resolve()
        trainer, restored = build_trainer(recipe, CPU), build_trainer(recipe, CPU)
        trainer.scalers["G"] = torch.amp.GradScaler("cpu", init_scale=2.0**40)
        before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
        assert trainer.step(batch_of(tiny)).skipped == "G"
        after = trainer.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("network/"))
        assert after["scaler/G"].tolist() == [2.0**39, 0]
        restored.load_state_dict(after)
        assert restored.state_dict()["scaler/G"].tolist() == [2.0**39, 0]


class TestBackendFlags:
    def test_tf32_is_allowed_for_tf32_only_and_flags_are_restored(self) -> None:
        switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
        before = [switch.allow_tf32 for switch in switches], torch.backends.cudnn.benchmark
        for name, expected in (("fp32", False), ("tf32", True), ("bf16", False)):
            with backend_flags(name, try_algorithms=True):
                assert [switch.allow_tf32 for switch in switches] == [expected, expected]
                assert torch.backends.cudnn.benchmark
        assert ([switch.allow_tf32 for switch in switches], torch.backends.cudnn.benchmark) == before


def test_unknown_precision_is_rejected(tiny: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"'precision' cannot be 'half'; it takes .*bf16"):
        tiny.swap({"training.precision": "half"})


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_runs_in_low_precision_resume_bit_for_bit(name: str, tiny: Recipe, dataset, tmp_path) -> None:
    recipe = tiny.swap({"training.precision": name})
    whole = gantoolkit.train(recipe, dataset, tmp_path / "whole")
    gantoolkit.train(recipe, dataset, tmp_path / "stopped", stop_at=3)
    resumed = gantoolkit.train(recipe, dataset, tmp_path / "stopped")
    checkpoints = [run.folder.newest_checkpoint(run.recipe) for run in (whole, resumed)]
    assert checkpoints[0].progress["skipped_steps"] == 0
    for key, tensor in checkpoints[0].tensors.items():
        assert torch.equal(tensor, checkpoints[1].tensors[key]), key


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_translator_computes_in_its_precision(name, tiny: Recipe, dataset, tmp_path) -> None:
    run = gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=2)
    image = run.translator("A2B").read(next((dataset / "testA").iterdir()))
    wide, narrow = run.translator("A2B"), run.translator("A2B", precision=name)
    assert narrow.generator.precision == name
    first, second = (np.asarray(translator(image), dtype=np.int64) for translator in (wide, narrow))
    assert 0 < np.abs(first - second).max() < 6  # of 255


def test_compiled_networks_may_be_recompiled_often() -> None:
    """Networks of a system share the code of `forward`; torch.compile gives up on code that it has compiled eight times."""
    import torch._dynamo.config as dynamo

    before = dynamo.recompile_limit
    with backend_flags("fp32", try_algorithms=False, compiles=True):
        assert dynamo.recompile_limit >= 64
    assert dynamo.recompile_limit == before


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


def test_a_weight_is_rounded_once_for_several_passes() -> None:
    network = Convolution()
    set_precision("bf16", network, CPU, shares_weights=True)
    images = torch.rand(1, 2, 8, 8)

    def count_roundings() -> tuple[int, int]:
        """Of one weight at a time, and of all weights of a network."""
        with torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
            (network(images).sum() + network(2 * images).sum()).backward()
        single = [event for event in profile.events() if event.name == "aten::_to_copy"]
        together = [event for event in profile.events() if event.name == "aten::_foreach_copy_"]
        return sum(event.input_shapes[:1] == [[2, 2, 3, 3]] for event in single), len(together)

    assert count_roundings() == (4, 0)  # forward and backward of each pass
    network.zero_grad()
    with shared_weights():
        assert count_roundings() == (0, 2)


def test_gradients_of_shared_weights_are_differentiable() -> None:
    network = Convolution()
    set_precision("bf16", network, CPU, shares_weights=True)
    weight = network.layer.weight
    with shared_weights():
        (gradient,) = torch.autograd.grad(network(torch.rand(1, 2, 8, 8)).square().sum(), weight, create_graph=True)
        gradient.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_layers_may_share_a_weight() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    network[1].weight = network[0].weight
    expected = copy.deepcopy(network)
    for each, shares_weights in ((network, True), (expected, False)):
        set_precision("bf16", each, CPU, shares_weights=shares_weights)
    images = torch.rand(1, 2, 4, 4)
    with shared_weights():
        assert torch.equal(network(images), expected(images))


def test_a_weight_that_was_rounded_without_gradient_gets_a_gradient_later() -> None:
    network = Convolution()
    set_precision("bf16", network, CPU, shares_weights=True)
    images = torch.rand(1, 2, 8, 8)
    with shared_weights():
        with torch.no_grad():
            network(images)
        network(images).sum().backward()
    assert network.layer.weight.grad is not None


class TestRoundedWeights:
    """Weights that are rounded once give the results of weights that autocast rounds at every call."""

    @pytest.mark.parametrize("name", ["bf16", "fp16"])
    @pytest.mark.parametrize("generator", ["resnet", "unet"])
    def test_result_is_the_same_bit_for_bit(self, generator: str, name: str) -> None:
        options = {"width": 16} if generator == "resnet" else {"depth": 4, "width": 16}
        network = build_system(cyclegan(generator={"name": generator, **options}).resolve()).directions["A2B"].eval()
        rounded = copy.deepcopy(network)
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        for each in (network, rounded):
            set_memory_format(each, torch.channels_last, supported=True)
            set_precision(name, each, CPU)
        round_in_place(rounded, torch.bfloat16 if name == "bf16" else torch.float16, CPU)
        dtypes = {parameter.dtype for parameter in rounded.parameters()}
        assert dtypes & {torch.bfloat16, torch.float16}
        with torch.inference_mode():
            assert torch.equal(rounded(images), network(images))

    def test_weights_that_are_computed_and_those_of_norms_stay(self) -> None:
        network = nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)),
            nn.InstanceNorm2d(3, affine=True),
            nn.Conv2d(3, 3, 1),
        )
        round_in_place(network, torch.bfloat16, CPU)
        assert network[0].weight.dtype == network[1].weight.dtype == torch.float32
        assert network[2].weight.dtype == network[2].bias.dtype == torch.bfloat16

    def test_winograd_convolutions_are_rounded_on_cuda_only(self) -> None:
        """On a CPU they transform their weights in float32 first."""
        for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
            layer = Conv3x3(4, 4)
            round_in_place(layer, torch.bfloat16, torch.device(device))
            assert layer.weight.dtype == dtype
