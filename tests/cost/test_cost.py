"""The cost of a step: counts match formulas, memory matches measurements, proposals fit the limit. Times are not checked."""

import functools
import gc
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _helpers.small import TINY, batch_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gantoolkit.cli.settings import parse_setting
from gantoolkit.cost import StepCost, bench, count_step, count_translations, plan
from gantoolkit.cost.counters import LiveBytes
from gantoolkit.cost.fitting import largest_fitting, needed_bytes, propose, resize
from gantoolkit.cost.memory_meter import MemoryMeter
from gantoolkit.cost.prediction import Probe, extrapolate, smaller_recipes
from gantoolkit.cost.timing import measure_matrix_rate, time_steps
from gantoolkit.errors import GantoolkitError, RecipeError, TrainingError
from gantoolkit.plugins import Phase
from gantoolkit.recipes import Recipe, cyclegan, find_recipe
from gantoolkit.recipes.block_spec import BlockSpec
from gantoolkit.runtime.memory import MARGIN, available_memory, format_bytes, parse_bytes
from gantoolkit.systems import CycleGAN
from gantoolkit.training import build_trainer
from gantoolkit.training.building import settle_arithmetic

GMAC = 2e9
CPU = torch.device("cpu")

SMALL = {
    "cyclegan": {**TINY, "image_pool.size": 3},
    "bigan": {**TINY, "image_pool.size": 3},
    "simgan": {**TINY, "image_pool.size": 3},
    "pix2pix": {**TINY, "generator": {"name": "unet", "width": 4, "depth": 3, "dropout": 0.5}},
    "cyclegan with penalties": {**TINY, "image_pool.size": 3, "adversarial_loss": "wgan_gp"},
    "cogan": {"data.load_size": 20, "data.crop_size": 16, "training.batch_size": 4},
    "gatys": {"data.load_size": 64, "data.crop_size": 64, "features.backbone": "vgg11", "features.weights": "none"}
    | {"content_layer": "relu4_1"},
    "feature_gan": {
        **TINY,
        "self_regularization_loss.features": {"name": "timm", "backbone": "vgg11", "weights": "none"},
    }
    | {"self_regularization_loss.side": 32},
}


def small(name: str) -> Recipe:
    if name in ("gatys", "feature_gan"):
        pytest.importorskip("timm")
    return find_recipe(name.partition(" ")[0], SMALL[name]).check()


@functools.cache
def count_full_size(identity: float = 0.0, *, batched: bool = True) -> StepCost:
    return count_step(cyclegan(identity_weight=identity).swap(batched=batched).resolve())


class TestOperations:
    """The operations of the paper's networks at 256×256: two for each multiplication with its addition."""

    generator = 49.551507456
    first_convolution = 7 * 7 * 3 * 64 * 256**2 / 1e9

    def test_translation(self) -> None:
        counts = count_translations(cyclegan().resolve())
        assert {direction: flops / GMAC for direction, flops in counts.items()} == {
            "A2B": pytest.approx(self.generator),
            "B2A": pytest.approx(self.generator),
        }

    @pytest.mark.parametrize(("identity", "total"), [(0.0, 643.5), (5.0, 939.6)])
    def test_step(self, identity: float, total: float) -> None:
        assert count_full_size(identity, batched=False).flops / GMAC == pytest.approx(total, abs=0.05)

    @pytest.mark.parametrize(("identity", "passes"), [(0.0, 1), (5.0, 2)])
    def test_batched_inputs_add_the_gradient_of_real_images(self, identity: float, passes: int) -> None:
        separate, batched = (count_full_size(identity, batched=value).flops / GMAC for value in (False, True))
        assert batched - separate == pytest.approx(passes * self.first_convolution)

    def test_stages(self) -> None:
        cost = count_full_size()
        discriminator = 3.146809344
        stages = {stage.name: stage.flops / GMAC for stage in cost.stages}
        assert list(stages) == [
            "forward",
            *(f"{x} {part}" for x in "GD" for part in ("losses", "backward", "optimizer")),
        ]
        assert stages["forward"] == pytest.approx(4 * self.generator)
        assert stages["G losses"] == pytest.approx(2 * discriminator)
        # Twice the forward pass, except for one real input; in the frozen discriminators only the gradient of the images.
        assert stages["G backward"] == pytest.approx(8 * self.generator - self.first_convolution + 2 * discriminator)
        assert stages["D losses"] == pytest.approx(4 * discriminator)
        first = 4 * 4 * 3 * 64 * 128**2 / 1e9
        assert stages["D backward"] == pytest.approx(8 * discriminator - 4 * first)
        assert stages["G optimizer"] == stages["D optimizer"] == 0

    @pytest.mark.parametrize("name", ["cyclegan", "pix2pix", "cogan", "gatys"])
    def test_counts_match_those_of_torch_in_a_real_step(self, name: str) -> None:
        recipe = small(name)
        with time_steps(recipe, CPU) as steps, FlopCounterMode(display=False) as counter:
            steps.step()
        assert count_step(recipe).flops == counter.get_total_flops()

    def test_operations_grow_with_the_batch_and_almost_with_the_pixels(self, tiny: Recipe) -> None:
        base, batch_of_four, large_crop = (
            count_step(resize(tiny.resolve(), batch_size=batch, crop_size=crop)).flops
            for batch, crop in ((1, 64), (4, 64), (1, 128))
        )
        assert batch_of_four == 4 * base
        assert large_crop == pytest.approx(4 * base, rel=0.1)  # borders are a larger part of a small image

    def test_phase_of_every_third_step_counts_one_third(self, tiny: Recipe) -> None:
        before, after = count_step(tiny.resolve()), count_step(with_system(tiny, EveryThirdStep).resolve())
        discriminators = sum(stage.flops for stage in before.stages if stage.name.startswith("D "))
        assert after.flops == pytest.approx(before.flops - discriminators * 2 / 3)
        assert after.peak_bytes == before.peak_bytes


class TestMemory:
    def test_parts_of_cyclegan(self) -> None:
        cost = count_full_size()
        parameters = 4 * 2 * (11_378_179 + 2_764_737)
        trained = parameters - 4 * 2 * (5_248 + 896)  # without the biases before instance norm
        assert (cost.weight_bytes, cost.gradient_bytes, cost.optimizer_bytes) == (parameters, trained, 2 * trained)
        assert cost.pool_bytes == 4 * 2 * 51 * 3 * 256**2  # one entry is for images that are not stored
        persistent = cost.weight_bytes + cost.gradient_bytes + cost.optimizer_bytes + cost.pool_bytes
        assert cost.peak_bytes == persistent + cost.working_bytes == max(stage.peak_bytes for stage in cost.stages)

    def test_live_bytes_include_each_storage_once(self) -> None:
        with LiveBytes() as live:
            first = torch.zeros(256, device="meta")
            view = first.view(16, 16)
            second = view + 1
            assert (live.now, live.peak) == (2048, 2048)
            del first
            assert live.now == 2048
            del view
            assert live.now == 1024
            live.start_peak()
            second.mul_(2)
            assert live.peak == 1024
            assert not torch.zeros((), dtype=torch.bool, device="meta")

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("cyclegan", {"generator.width": 16, "generator.blocks": 2, "data.crop_size": 64}),
            ("cyclegan", {"generator.width": 8, "generator.blocks": 2, "data.crop_size": 64, "training.batch_size": 4}),
            ("pix2pix", {"generator.width": 16, "data.crop_size": 256}),
            ("simgan", {"generator.width": 16, "generator.blocks": 2, "data.crop_size": 96}),
        ],
    )
    def test_prediction_matches_the_allocations_of_torch(self, name: str, changes: dict[str, object]) -> None:
        recipe = find_recipe(name, changes if name == "pix2pix" else {**changes, "image_pool": "none"}).check()
        arithmetic = settle_arithmetic(recipe, CPU)  # builds meta tensors, which use no memory but would be counted
        gc.collect()  # garbage of an earlier test would be freed during the measurement
        with (
            LiveBytes() as tensors,
            profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler,
            time_steps(recipe, CPU, arithmetic) as steps,
        ):
            for _ in range(2):
                steps.step()
        predicted = count_step(recipe).peak_bytes
        # In channels_last, some gradients are copied once more than on the meta device.
        assert predicted * 0.99 < tensors.peak < predicted * 1.04
        # Convolutions also allocate workspace: copies of their weight and of its gradient in another memory format.
        networks = steps._trainer.system.networks.values()
        workspace = 2 * max(weight.nbytes for network in networks for weight in network.parameters())
        assert tensors.peak * 0.99 < peak_of(profiler) < predicted * 1.06 + workspace

    @pytest.mark.slow(reason="measures two subprocesses that train on larger images: about 10 s")
    @pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process reset its recorded peak"
    )
    def test_process_grows_by_the_prediction_within_the_margin(self) -> None:
        """Compares the difference between two crop sizes, because the constant memory of libraries varies between machines."""
        code = (
            "import sys\n"
            "import torch\n"
            "from gantoolkit.cost import count_step\n"
            "from gantoolkit.cost.timing import time_steps\n"
            "from gantoolkit.cost.memory_meter import MemoryMeter\n"
            "from gantoolkit.recipes import find_recipe\n"
            "changes = {'generator.blocks': 3, 'data.crop_size': int(sys.argv[1]), 'image_pool': 'none'}\n"
            "recipe, device = find_recipe('simgan', changes).check(), torch.device('cpu')\n"
            "meter = MemoryMeter(device)\n"
            "with time_steps(recipe, device) as steps:\n"
            "    [steps.step() for _ in range(2)]\n"
            "print(count_step(recipe).peak_bytes, meter.read())\n"
        )
        # Large blocks are returned to the system when they are freed.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        measurements = [
            subprocess.run(
                [sys.executable, "-c", code, str(side)], env=environment, capture_output=True, text=True, check=True
            ).stdout.split()
            for side in (64, 224)
        ]
        predicted, measured = (int(large) - int(small) for small, large in zip(*measurements, strict=True))
        assert predicted * 0.95 < measured < predicted * (1 + MARGIN)

    @settings(max_examples=4)
    @given(batch=st.integers(1, 6), crop=st.sampled_from([16, 24, 32, 48]), increase=st.integers(1, 3))
    def test_memory_grows_with_batch_and_crop(self, batch: int, crop: int, increase: int) -> None:
        recipe = small("simgan")
        base, larger_batch, larger_crop = (
            count_step(resize(recipe, batch_size=size, crop_size=side)).peak_bytes
            for size, side in ((batch, crop), (batch + increase, crop), (batch, crop + 4 * increase))
        )
        assert base < larger_batch
        assert base < larger_crop

    def test_counting_allocates_nothing(self) -> None:
        recipe = cyclegan(data={"crop_size": 2048, "load_size": 2048}, training={"batch_size": 64}).resolve()
        assert count_step(recipe).peak_bytes > 5e12

    def test_counting_does_not_change_the_random_state(self, tiny: Recipe) -> None:
        before = torch.random.get_rng_state()
        count_step(tiny.resolve())
        count_translations(tiny.resolve())
        assert torch.equal(torch.random.get_rng_state(), before)


class EveryThirdStep(CycleGAN):
    """Trains its discriminators in every third step only."""

    def _join(self) -> list[Phase]:
        first, second = super()._join()
        return [first, replace(second, every=3)]


class ReadsLosses(CycleGAN):
    """Reads the values of its losses, which tensors on the meta device do not have."""

    def losses(self, objective, batch, shared):
        losses = super().losses(objective, batch, shared)
        return {name: loss for name, loss in losses.items() if float(loss) > -1}


def with_system(recipe: Recipe, system: type) -> Recipe:
    return recipe.model_copy(update={"system": BlockSpec.of(system, **recipe.system.parameters)})


def peak_of(profiler: profile) -> int:
    """The most bytes that were allocated at once, from the allocations that the profiler recorded."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("name", SMALL)
class TestEverySystem:
    def test_system_is_counted(self, name: str) -> None:
        cost = count_step(small(name))
        assert cost.flops > 0
        assert cost.stages[0].name == "forward"

    def test_observing_the_stages_does_not_change_a_step(self, name: str) -> None:
        recipe = small(name)
        stages: list[str] = []
        results = []
        for is_observed in (False, True):
            torch.manual_seed(0)
            trainer = build_trainer(recipe, CPU)
            batch = batch_of(recipe, recipe.training.batch_size)
            if is_observed:
                trainer.on_stage = stages.append
            trainer.step(batch)
            trainer.on_stage = lambda stage: None
            trainer.step(batch)
            results.append(trainer.state_dict())
        phases = [
            f"{phase.name} {part}" for phase in trainer.system.phases for part in ("losses", "backward", "optimizer")
        ]
        assert stages == ["forward", *phases]
        assert results[0].keys() == results[1].keys()
        assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


class TestFitting:
    @given(
        constant=st.integers(0, 10**6),
        slope=st.integers(1, 10**5),
        limit=st.integers(1, 10**8),
        start=st.integers(1, 400),
        power=st.sampled_from([1, 2]),
        too_small=st.integers(0, 5),
    )
    def test_search_finds_the_largest_size(
        self, constant: int, slope: int, limit: int, start: int, power: int, too_small: int
    ) -> None:
        sizes = range(1, 400)

        def bytes_at(size: int) -> int:
            return 0 if size <= too_small else constant + slope * size**power

        fitting = [size for size in sizes if size > too_small and bytes_at(size) <= limit]
        assert largest_fitting(sizes, bytes_at, limit, start=start, power=power) == max(fitting, default=None)

    def test_search_on_a_straight_line_takes_few_attempts(self) -> None:
        attempts = []

        def bytes_at(size: int) -> int:
            attempts.append(size)
            return 10**9 + 3 * 10**8 * size

        assert largest_fitting(range(1, 65_537), bytes_at, 10**13, start=1) == 33_330
        assert len(attempts) <= 5

    def test_proposals_fit_and_the_next_larger_sizes_do_not(self) -> None:
        recipe, limit = small("simgan"), 5_000_000
        batch, crop = propose(recipe, limit)
        assert (batch.crop_size, crop.batch_size) == (16, 1)
        for proposal, larger in (
            (batch, resize(recipe, batch_size=batch.batch_size + 1)),
            (crop, resize(recipe, crop_size=crop.crop_size + 4)),
        ):
            proposed = recipe.swap(dict(parse_setting(setting) for setting in proposal.settings)).check()
            assert needed_bytes(count_step(proposed)) == proposal.needed_bytes <= limit
            assert needed_bytes(count_step(larger)) > limit

    def test_proposed_batch_is_at_most_the_data_set(self) -> None:
        assert propose(small("simgan"), 10**7, pairs=5)[0].batch_size == 5

    def test_largest_crop_of_single_pairs_is_proposed_if_no_batch_fits(self) -> None:
        recipe = resize(small("simgan"), batch_size=64, crop_size=512)
        proposals = propose(recipe, 2_000_000)
        assert [proposal.batch_size for proposal in proposals] == [1]
        assert 16 <= proposals[0].crop_size < 512
        assert propose(recipe, 100_000) == ()

    def test_networks_that_accept_only_powers_of_two(self) -> None:
        proposals = propose(small("cogan"), 10**9)
        assert proposals[1].crop_size in (64, 128, 256)
        assert "data.load_size" in proposals[1].settings[1]


class TestTime:
    """The estimate that follows from probes with given times."""

    def estimate(self, *seconds: float, recipe: Recipe):
        probes = [Probe(16 * 2**index, 1, 4.0**index, (time, time)) for index, time in enumerate(seconds)]
        return extrapolate(probes, recipe, StepCost(64.0, 0, 0, 0, 0, 0, 0, ()))

    def test_time_is_proportional_to_the_operations(self, tiny: Recipe) -> None:
        recipe = resize(tiny.resolve(), crop_size=128)
        estimate = self.estimate(1.0, 4.0, recipe=recipe)
        assert (estimate.low, estimate.seconds_per_step, estimate.high) == (64, 64, 64)

    def test_constant_overhead_lowers_the_lower_bound(self, tiny: Recipe) -> None:
        recipe = resize(tiny.resolve(), crop_size=128)
        estimate = self.estimate(2.0, 5.0, recipe=recipe)  # one second, and one for each operation
        assert (estimate.low, estimate.seconds_per_step, estimate.high) == (65, 80, 80)

    def test_probe_of_full_size_is_the_estimate(self, tiny: Recipe) -> None:
        probe = Probe(16, 1, 1.0, (2.0, 3.0, 5.0))
        estimate = extrapolate([probe], tiny.resolve(), count_step(tiny.resolve()))
        assert (estimate.low, estimate.seconds_per_step, estimate.high) == (2, 3, 5)

    def test_last_probe_is_the_recipe_itself(self, tiny: Recipe) -> None:
        probes = smaller_recipes(resize(tiny.resolve(), crop_size=144, batch_size=3))
        sizes = [(probe.data.crop_size, probe.training.batch_size) for probe in probes]
        assert sizes == [(36, 1), (72, 1), (144, 1), (144, 3)]


class TestBench:
    @pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
    def test_matrix_rate_has_the_precision_of_the_recipe(self, precision: str) -> None:
        result = bench(cyclegan().swap({**TINY, "training.precision": precision}), device="cpu", steps=1)
        assert result.matrix_rate.arithmetic in (("fp32", "bf16") if precision == "auto" else (precision,))

    def test_values_are_consistent(self, tiny: Recipe) -> None:
        result = bench(tiny, device="cpu", steps=3)
        assert len(result.seconds) == 3
        assert result.pairs_per_second == pytest.approx(1 / result.seconds_per_step)
        assert result.flops == count_step(tiny.resolve()).flops
        assert result.flops_per_second == pytest.approx(result.flops / result.seconds_per_step)
        assert result.share_of_matrix_rate == pytest.approx(
            result.flops_per_second / result.matrix_rate.flops_per_second
        )
        for shares in (result.stages, result.operators):
            assert sum(item.share for item in shares) == pytest.approx(1)
        assert [stage.name for stage in result.stages][:3] == ["forward", "G losses", "G backward"]
        assert any("convolution" in operator.name for operator in result.operators)

    def test_system_that_cannot_be_counted_is_measured(self, tiny: Recipe) -> None:
        result = bench(with_system(tiny, ReadsLosses), device="cpu", steps=1)
        assert result.flops is None
        assert result.share_of_matrix_rate is None
        assert "a step cannot run on the meta device" in result.notes[0]

    def test_phase_of_every_third_step_is_timed_in_whole_cycles(self, tiny: Recipe) -> None:
        result = bench(with_system(tiny, EveryThirdStep), device="cpu", steps=4)
        assert len(result.seconds) == 2  # of three steps each
        assert "D losses" in [stage.name for stage in result.stages]

    def test_recipe_that_does_not_fit_is_refused(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.cost.measurement.available_memory", lambda device: 1000)
        with pytest.raises(TrainingError, match="cpu has 1 kB free; `gantoolkit plan` proposes what fits"):
            bench(tiny, device="cpu")

    def test_bench_does_not_change_the_random_state(self, tiny: Recipe) -> None:
        before = torch.random.get_rng_state()
        bench(tiny, device="cpu", steps=1)
        assert torch.equal(torch.random.get_rng_state(), before)


class TestPlan:
    def test_number_of_steps_follows_from_the_data_set(self, dataset: Path) -> None:
        result = plan(small("simgan"), data=dataset, device="cpu", memory=10**7)
        assert result.steps == 10
        assert result.hours == tuple(
            pytest.approx(10 * seconds / 3600)
            for seconds in (result.time.seconds_per_step, result.time.low, result.time.high)
        )
        assert result.proposals[0].batch_size == 5
        assert result.fits

    def test_time_is_not_estimated_if_no_step_fits(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.cost.prediction.available_memory", lambda device: 1000)
        result = plan(tiny, device="cpu", steps=5)
        assert (result.time, result.hours, result.fits, result.proposals) == (None, None, False, ())

    def test_unknown_memory_gives_no_proposals(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.cost.prediction.available_memory", lambda device: None)
        result = plan(tiny, device="cpu")
        assert (result.fits, result.proposals) == (None, ())

    def test_system_that_cannot_be_counted_is_refused(self, tiny: Recipe) -> None:
        with pytest.raises(RecipeError, match="can be measured but not predicted"):
            plan(with_system(tiny, ReadsLosses), device="cpu")


class TestCommands:
    tiny = tuple(
        f"--set={name}={value}"
        for name, value in {
            "generator.width": 4,
            "generator.blocks": 1,
            "discriminator.width": 4,
            "discriminator.layers": 1,
            "data.load_size": 20,
            "data.crop_size": 16,
        }.items()
    )

    def test_bench(self, command, tmp_path: Path) -> None:
        code, output, _ = command(
            "bench", "cyclegan", *self.tiny, "--steps=2", "--device=cpu", "--json", tmp_path / "b.json"
        )
        assert code == 0
        assert re.search(r"cyclegan on cpu, \d+ threads?: batches of 1, crops of 16×16", output)
        assert re.search(r"speed +\S+ pairs/s, \S+ m?s a step \(median of 2, ", output)
        assert re.search(r"share +\S+% of .*FLOP/s, which a product of \d+×\d+ matrices in fp32 reaches here", output)
        assert re.search(r"G backward +\S+ ms +\S+%", output)
        content = json.loads((tmp_path / "b.json").read_text())
        assert content["flops"] == count_step(cyclegan().swap(TINY).resolve()).flops
        assert len(content["seconds"]) == 2

    def test_plan(self, command, dataset: Path, tmp_path: Path) -> None:
        arguments = ["plan", "simgan", *self.tiny, "--device=cpu"]
        code, output, _ = command(*arguments, "--memory=20MB", "--data", dataset, "--json", tmp_path / "p.json")
        assert code == 0
        assert re.search(r"required +\S+ kB with a margin of 50%: fits into 20 MB", output)
        assert re.search(r"run +1,000 steps: ", output)
        content = json.loads((tmp_path / "p.json").read_text())
        assert len(content["proposals"]) == 2
        for proposal in content["proposals"]:
            assert all(f"--set {setting}" in output for setting in proposal["settings"])
        code, output, _ = command(*arguments, "--memory=100kB")
        assert code == 0
        assert "does not fit into 100 kB" in output
        assert "no batch and no crop of it fits" in output

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["plan", "cyclegann"], "Did you mean 'cyclegan'?"),
            (["plan", "cyclegan", "--memory=much"], "'much' is not a memory size; write one such as 12GB"),
            (["plan", "cyclegan", "--data=nowhere"], "nowhere: no such folder"),
            (["plan", "cyclegan", "--set", "data.crop_size=30"], "accepts only multiples of 4"),
            (["bench", "cyclegan", "--set", "generator.block=3"], "did you mean 'blocks'?"),
            (["bench", "cyclegan", "--device=tpu9"], "device 'tpu9' cannot be used here"),
            (
                ["bench", "cyclegan", *tiny, "--steps=1", "--json=/dev/null/b.json"],
                "/dev/null/b.json: cannot be written",
            ),
        ],
    )
    def test_bad_input_gives_one_line_and_exit_code_2(self, arguments: list[str], message: str, command) -> None:
        code, _, errors = command(*arguments)
        assert code == 2
        assert message in errors
        assert errors.splitlines()[-1].startswith("error: ")

    def test_zero_steps_are_refused(self, command) -> None:
        assert command("bench", "cyclegan", "--steps=0")[0] == 2


@given(size=st.integers(1, 10**15))
def test_formatted_size_is_parsed_to_the_same_size(size: int) -> None:
    assert parse_bytes(format_bytes(size).replace(",", "")) == pytest.approx(size, rel=0.005, abs=0.5)


@pytest.mark.parametrize("text", ["", "GB", "12 apples", "-3GB", "0", "1e9", "nan"])
def test_text_that_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(GantoolkitError, match="is not a memory size"):
        parse_bytes(text)


def test_limit_of_a_container_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantoolkit.runtime.memory._CGROUP", tmp_path)
    unlimited = available_memory(CPU)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    assert available_memory(CPU) == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(CPU) == pytest.approx(unlimited, rel=0.5)


def test_memory_is_measured_if_the_recorded_peak_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantoolkit.cost.memory_meter._PROC", Path("/nowhere"))
    meter = MemoryMeter(CPU)
    assert "since it began" in meter.kind
    assert meter.read() == 0 or meter.read() > 0


def test_matrix_rate_names_its_arithmetic() -> None:
    rate = measure_matrix_rate(CPU)
    assert rate.flops_per_second > 0
    assert rate.side >= 512
    assert rate.arithmetic == "fp32"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_on_cuda_matches_the_prediction() -> None:
    recipe = cyclegan(image_pool="none").swap({"data.crop_size": 128, "training.capture": False}).check()
    device = torch.device("cuda")
    meter = MemoryMeter(device)
    before = torch.cuda.memory_allocated(device)
    with time_steps(recipe, device) as steps:
        steps.step()
        meter.restart()  # in the first step, cuDNN tries algorithms with large workspaces
        for _ in range(2):
            steps.step()
    assert meter.read() - before == pytest.approx(count_step(recipe).peak_bytes, rel=0.1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bench_and_plan_on_cuda(tiny: Recipe) -> None:
    result = bench(tiny, device="cuda", steps=2)
    assert result.memory_kind == "allocated by torch"
    assert sum(operator.seconds for operator in result.operators) > 0
    assert plan(tiny, device="cuda").fits
