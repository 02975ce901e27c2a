from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gantoolkit
from gantoolkit.blocks.generators.resnet import ResNetGenerator
from gantoolkit.errors import GantoolkitError
from gantoolkit.layers import convolution
from gantoolkit.layers.convolution import Conv3x3
from gantoolkit.layers.kernels import cpu_winograd
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runtime.arithmetic import Arithmetic, choose_arithmetic, time_convolution

CPU = torch.device("cpu")
WIDE, MEDIUM, NARROW = Conv3x3(256, 256), Conv3x3(128, 128), Conv3x3(64, 64)

Times = Callable[[Mapping[str, float]], None]


@pytest.fixture(autouse=True)
def _measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANTOOLKIT_CONVOLUTION")


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Replace measured times by given ones, such as `{"fp32 direct": 2.0}`."""

    def replace(seconds: Mapping[str, float]) -> None:
        def stand_in(candidates: tuple[Arithmetic, ...], *, trains: bool) -> dict[Arithmetic, float]:
            return {each: seconds[f"{each.precision} {each.convolution}"] for each in candidates}

        monkeypatch.setattr("gantoolkit.runtime.arithmetic.time_convolution", stand_in)

    return replace


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when anything is measured."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a convolution was timed")

    monkeypatch.setattr("gantoolkit.runtime.arithmetic.time_convolution", fail)


@pytest.fixture
def small_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Winograd's algorithm be used for convolutions of any size."""
    for table in (convolution._MIN_CHANNELS, convolution._MIN_CHANNEL_TILES):
        for dtype in table:
            monkeypatch.setitem(table, dtype, 1)


class TestChoice:
    @pytest.mark.parametrize(
        ("precision", "seconds", "expected"),
        [
            ("fp32", {"fp32 direct": 2.0, "fp32 winograd": 1.0}, Arithmetic("fp32", "winograd")),
            ("fp32", {"fp32 direct": 1.0, "fp32 winograd": 2.0}, Arithmetic("fp32", "direct")),
            ("tf32", {"tf32 direct": 2.0, "tf32 winograd": 1.0}, Arithmetic("tf32", "winograd")),
            ("bf16", {"bf16 direct": 1.0, "bf16 winograd": 2.0}, Arithmetic("bf16", "direct")),
            # The algorithm with larger rounding errors has to be faster by 10 %.
            ("bf16", {"bf16 direct": 1.05, "bf16 winograd": 1.0}, Arithmetic("bf16", "direct")),
        ],
        ids=str,
    )
    def test_faster_algorithm_is_chosen(self, precision, seconds, expected, times: Times) -> None:
        times(seconds)
        assert choose_arithmetic(precision, CPU, [NARROW, WIDE]) == expected

    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [
            # With fast direct convolutions in bfloat16 and slow transforms, as on a CPU with AMX.
            ((4.0, 2.5, 1.0, 1.5), Arithmetic("bf16", "direct")),
            ((4.0, 2.5, 3.0, 1.5), Arithmetic("bf16", "winograd")),
            ((4.0, 2.5, 9.0, 9.0), Arithmetic("fp32", "winograd")),
            # bfloat16 has to be faster than the fastest in float32, by 20 %.
            ((4.0, 2.5, 2.3, 2.2), Arithmetic("fp32", "winograd")),
        ],
        ids=str,
    )
    def test_auto_compares_each_precision_with_its_fastest_algorithm(self, seconds, expected, times: Times) -> None:
        names = ("fp32 direct", "fp32 winograd", "bf16 direct", "bf16 winograd")
        times(dict(zip(names, seconds, strict=True)))
        assert choose_arithmetic("auto", CPU, [WIDE]) == expected
        assert choose_arithmetic("auto", CPU, None) == expected  # unknown networks may be wide

    @pytest.mark.usefixtures("refused")
    @pytest.mark.parametrize(
        ("precision", "networks"),
        [("fp32", [NARROW]), ("fp32", [nn.Conv2d(256, 256, 3)]), ("fp32", []), ("bf16", [MEDIUM]), ("fp16", [WIDE])],
        ids=str,
    )
    def test_nothing_is_measured_for_networks_that_only_use_direct_convolution(self, precision, networks) -> None:
        assert choose_arithmetic(precision, CPU, networks) == Arithmetic(precision, "direct")

    def test_auto_measures_precisions_for_narrow_networks(self, times: Times) -> None:
        times({"fp32 direct": 2.0, "bf16 direct": 1.0})
        assert choose_arithmetic("auto", CPU, [NARROW]) == Arithmetic("bf16", "direct")

    @pytest.mark.usefixtures("refused")
    @pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")])
    def test_nothing_is_measured_on_other_devices(self, capability, precision, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        assert choose_arithmetic("auto", torch.device("cuda"), [WIDE]) == Arithmetic(precision, "direct")
        assert choose_arithmetic("bf16", torch.device("cuda"), [WIDE]) == Arithmetic("bf16", "direct")
        assert choose_arithmetic("auto", torch.device("meta"), [WIDE]) == Arithmetic("fp32", "direct")

    @pytest.mark.usefixtures("refused")
    @pytest.mark.parametrize("algorithm", ["direct", "winograd"])
    def test_environment_determines_the_algorithm(self, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GANTOOLKIT_CONVOLUTION", algorithm)
        assert choose_arithmetic("fp32", CPU, [WIDE]).convolution == algorithm
        assert choose_arithmetic("fp32", CPU, [NARROW]).convolution == "direct"

    def test_unknown_algorithm_in_the_environment_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GANTOOLKIT_CONVOLUTION", "fft")
        with pytest.raises(GantoolkitError, match=r"GANTOOLKIT_CONVOLUTION=fft: .* use direct or winograd"):
            choose_arithmetic("fp32", CPU, [WIDE])


@pytest.mark.parametrize("trains", [False, True])
def test_measurement_leaves_no_trace(trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[str, bool]] = []
    forward = Conv3x3.forward

    def spy(layer: Conv3x3, input: Tensor) -> Tensor:
        output = forward(layer, input)
        used.append((f"{output.dtype} {layer.algorithm}", output.requires_grad))
        return output

    monkeypatch.setattr(Conv3x3, "forward", spy)
    candidates = tuple(Arithmetic(precision, each) for precision in ("fp32", "bf16") for each in ("direct", "winograd"))
    state = torch.get_rng_state()
    seconds = time_convolution.__wrapped__(candidates, trains=trains)
    assert list(seconds) == list(candidates)
    assert all(value > 0 for value in seconds.values())
    dtypes = (torch.float32, torch.bfloat16)
    assert set(used) == {(f"{dtype} {each}", trains) for dtype in dtypes for each in ("direct", "winograd")}
    assert torch.equal(torch.get_rng_state(), state)
    assert not vars(cpu_winograd._buffers)


def test_measured_convolution_is_large_enough_for_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []
    monkeypatch.setattr(convolution, "winograd_convolution", lambda images, _: dtypes.append(images.dtype) or images)
    candidates = (Arithmetic("fp32", "winograd"), Arithmetic("bf16", "winograd"))
    time_convolution.__wrapped__(candidates, trains=False)
    assert set(dtypes) == {torch.float32, torch.bfloat16}


FAST_WINOGRAD = {"fp32 direct": 2.0, "fp32 winograd": 1.0, "bf16 direct": 2.0, "bf16 winograd": 1.0}
FAST_DIRECT = {"fp32 direct": 1.0, "fp32 winograd": 2.0, "bf16 direct": 1.0, "bf16 winograd": 2.0}
FAST_BF16 = {"fp32 direct": 2.0, "fp32 winograd": 2.0, "bf16 direct": 1.0, "bf16 winograd": 1.0}


def weights_of(run: Run) -> dict[str, Tensor]:
    networks = {direction: run.translator(direction).generator.network for direction in ("A2B", "B2A")}
    return {f"{side} {name}": tensor for side, net in networks.items() for name, tensor in net.state_dict().items()}


def are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


class TestRun:
    @pytest.mark.usefixtures("small_winograd")
    @pytest.mark.parametrize(
        ("precision", "before", "after", "expected"),
        [
            ("fp32", FAST_WINOGRAD, FAST_DIRECT, ("fp32", "winograd")),
            ("fp32", FAST_DIRECT, FAST_WINOGRAD, ("fp32", "direct")),
            ("bf16", FAST_WINOGRAD, FAST_DIRECT, ("bf16", "winograd")),
            ("auto", FAST_WINOGRAD, FAST_BF16, ("fp32", "winograd")),
            ("auto", FAST_BF16, FAST_WINOGRAD, ("bf16", "direct")),
        ],
        ids=["fp32 winograd", "fp32 direct", "bf16 winograd", "auto fp32", "auto bf16"],
    )
    def test_run_that_resumes_on_another_machine_keeps_its_arithmetic(
        self, precision, before, after, expected, tiny: Recipe, dataset: Path, tmp_path: Path, times: Times
    ) -> None:
        recipe = tiny.swap({"training.precision": precision})
        times(before)
        whole = gantoolkit.train(recipe, dataset, tmp_path / "whole")
        gantoolkit.train(recipe, dataset, tmp_path / "stopped", stop_at=4)
        times(after)
        resumed = gantoolkit.train(recipe, dataset, tmp_path / "stopped")
        other = gantoolkit.train(recipe, dataset, tmp_path / "other")
        assert are_equal(weights_of(whole), weights_of(resumed))
        assert not are_equal(weights_of(whole), weights_of(other))  # the choice does matter
        progress = resumed.folder.newest_checkpoint(resumed.recipe).progress
        assert (progress["precision"], progress["convolution"]) == expected
        report = resumed.report.read_text()
        assert f"<th>Precision</th><td>{expected[0]}</td>" in report
        assert f"<th>3×3 convolutions</th><td>{expected[1]}</td>" in report

    @pytest.mark.usefixtures("refused")
    def test_tiny_run_measures_nothing(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=1)
        run.translator("A2B")

    @pytest.mark.usefixtures("small_winograd")
    def test_generator_is_translated_with_the_faster_algorithm(self, tiny, dataset, tmp_path, times: Times) -> None:
        times(FAST_DIRECT)
        run = gantoolkit.train(tiny, dataset, tmp_path / "run", stop_at=1)
        for seconds, expected in ((FAST_DIRECT, "direct"), (FAST_WINOGRAD, "winograd")):
            times(seconds)
            network = run.translator("A2B").generator.network
            assert isinstance(network, ResNetGenerator)
            assert {layer.algorithm for layer in network.modules() if isinstance(layer, Conv3x3)} == {expected}
