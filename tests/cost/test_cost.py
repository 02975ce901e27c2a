"""What a step costs: counts against formulas, memory against measurement, proposals against the limit; no times."""

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

from gantoolkit.cli.train import parse_setting
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


class TestWork:
    """The arithmetic of the paper's networks at 256×256: multiplications with additions, two operations each."""

    generator = 49.551507456
    first_convolution = 7 * 7 * 3 * 64 * 256**2 / 1e9

    def test_a_translation(self) -> None:
        counts = count_translations(cyclegan().resolve())
        assert {direction: flops / GMAC for direction, flops in counts.items()} == {
            "A2B": pytest.approx(self.generator),
            "B2A": pytest.approx(self.generator),
        }

    @pytest.mark.parametrize(("identity", "total"), [(0.0, 643.5), (5.0, 939.6)])
    def test_a_step(self, identity: float, total: float) -> None:
        assert count_full_size(identity, batched=False).flops / GMAC == pytest.approx(total, abs=0.05)

    @pytest.mark.parametrize(("identity", "passes"), [(0.0, 1), (5.0, 2)])
    def test_a_batch_gives_real_images_a_gradient_beside_the_fakes_that_need_it(
        self, identity: float, passes: int
    ) -> None:
        apart, together = (count_full_size(identity, batched=batched).flops / GMAC for batched in (False, True))
        assert together - apart == pytest.approx(passes * self.first_convolution)

    def test_stage_by_stage(self) -> None:
        cost = count_full_size()
        discriminator = 3.146809344
        stages = {stage.name: stage.flops / GMAC for stage in cost.stages}
        assert list(stages) == [
            "forward",
            *(f"{x} {part}" for x in "GD" for part in ("losses", "backward", "optimizer")),
        ]
        assert stages["forward"] == pytest.approx(4 * self.generator)
        assert stages["G losses"] == pytest.approx(2 * discriminator)
        # Twice the way forward but for one input that is real, and only toward the images in the frozen discriminators.
        assert stages["G backward"] == pytest.approx(8 * self.generator - self.first_convolution + 2 * discriminator)
        assert stages["D losses"] == pytest.approx(4 * discriminator)
        first = 4 * 4 * 3 * 64 * 128**2 / 1e9
        assert stages["D backward"] == pytest.approx(8 * discriminator - 4 * first)
        assert stages["G optimizer"] == stages["D optimizer"] == 0

    @pytest.mark.parametrize("name", ["cyclegan", "pix2pix", "cogan", "gatys"])
    def test_it_is_what_torch_counts_in_a_real_step(self, name: str) -> None:
        recipe = small(name)
        with time_steps(recipe, CPU) as steps, FlopCounterMode(display=False) as counter:
            steps.step()
        assert count_step(recipe).flops == counter.get_total_flops()

    def test_it_grows_with_the_batch_and_nearly_with_the_pixels(self, tiny: Recipe) -> None:
        one, four, wide = (
            count_step(resize(tiny.resolve(), batch_size=batch, crop_size=crop)).flops
            for batch, crop in ((1, 64), (4, 64), (1, 128))
        )
        assert four == 4 * one
        assert wide == pytest.approx(4 * one, rel=0.1)  # a patch at the border is a larger part of a small image

    def test_a_phase_that_is_seldom_due_counts_in_part(self, tiny: Recipe) -> None:
        before, after = count_step(tiny.resolve()), count_step(with_system(tiny, Seldom).resolve())
        judged = sum(stage.flops for stage in before.stages if stage.name.startswith("D "))
        assert after.flops == pytest.approx(before.flops - judged * 2 / 3)
        assert after.peak_bytes == before.peak_bytes


class TestMemory:
    def test_the_parts_of_cyclegan(self) -> None:
        cost = count_full_size()
        parameters = 4 * 2 * (11_378_179 + 2_764_737)
        assert (cost.weight_bytes, cost.gradient_bytes, cost.optimizer_bytes) == (
            parameters,
            parameters,
            2 * parameters,
        )
        assert cost.pool_bytes == 4 * 2 * 51 * 3 * 256**2  # one place is for what is not kept
        held = cost.weight_bytes + cost.gradient_bytes + cost.optimizer_bytes + cost.pool_bytes
        assert cost.peak_bytes == held + cost.working_bytes == max(stage.peak_bytes for stage in cost.stages)

    def test_a_ledger_follows_tensors_and_views(self) -> None:
        with LiveBytes() as ledger:
            first = torch.zeros(256, device="meta")
            view = first.view(16, 16)
            second = view + 1
            assert (ledger.now, ledger.peak) == (2048, 2048)
            del first
            assert ledger.now == 2048
            del view
            assert ledger.now == 1024
            ledger.start_peak()
            second.mul_(2)
            assert ledger.peak == 1024
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
    def test_it_is_what_torch_allocates(self, name: str, changes: dict[str, object]) -> None:
        recipe = find_recipe(name, changes if name == "pix2pix" else {**changes, "image_pool": "none"}).check()
        gc.collect()  # what an earlier test leaves would be handed back meanwhile
        with (
            LiveBytes() as tensors,
            profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler,
            time_steps(recipe, CPU) as steps,
        ):
            for _ in range(2):
                steps.step()
        predicted = count_step(recipe).peak_bytes
        # In channels_last some gradients are copied once more than without memory.
        assert predicted * 0.99 < tensors.peak < predicted * 1.04
        # On top comes what convolutions use as scratch: copies of their weight, and of its gradient, in an order of their own.
        networks = steps._trainer.system.networks.values()
        scratch = 2 * max(weight.nbytes for network in networks for weight in network.parameters())
        assert tensors.peak * 0.99 < peak_of(profiler) < predicted * 1.06 + scratch

    @pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process measure its peak anew"
    )
    def test_a_process_grows_by_it(self) -> None:
        """Within the margin that a plan adds for what allocators keep and convolutions use as scratch.

        Of two sizes the difference is looked at: what libraries take once, whatever is computed, differs between machines.
        """
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
        # Large blocks are handed back to the system at once.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        figures = [
            subprocess.run(
                [sys.executable, "-c", code, str(side)], env=environment, capture_output=True, text=True, check=True
            ).stdout.split()
            for side in (64, 224)
        ]
        predicted, measured = (int(large) - int(small) for small, large in zip(*figures, strict=True))
        assert predicted * 0.95 < measured < predicted * (1 + MARGIN)

    @settings(max_examples=4)
    @given(batch=st.integers(1, 6), crop=st.sampled_from([16, 24, 32, 48]), more=st.integers(1, 3))
    def test_it_grows_with_batch_and_crop(self, batch: int, crop: int, more: int) -> None:
        recipe = small("simgan")
        one, deeper, wider = (
            count_step(resize(recipe, batch_size=size, crop_size=side)).peak_bytes
            for size, side in ((batch, crop), (batch + more, crop), (batch, crop + 4 * more))
        )
        assert one < deeper
        assert one < wider

    def test_nothing_is_allocated(self) -> None:
        recipe = cyclegan(data={"crop_size": 2048, "load_size": 2048}, training={"batch_size": 64}).resolve()
        assert count_step(recipe).peak_bytes > 5e12

    def test_counting_leaves_random_numbers_as_they_were(self, tiny: Recipe) -> None:
        before = torch.random.get_rng_state()
        count_step(tiny.resolve())
        count_translations(tiny.resolve())
        assert torch.equal(torch.random.get_rng_state(), before)


class Seldom(CycleGAN):
    """Its discriminators learn in every third step only."""

    def _join(self) -> list[Phase]:
        first, second = super()._join()
        return [first, replace(second, every=3)]


class Curious(CycleGAN):
    """It looks at a value, which tensors without memory do not have."""

    def losses(self, objective, batch, shared):
        losses = super().losses(objective, batch, shared)
        return {name: loss for name, loss in losses.items() if float(loss) > -1}


def with_system(recipe: Recipe, system: type) -> Recipe:
    return recipe.model_copy(update={"system": BlockSpec.of(system, **recipe.system.parameters)})


def peak_of(profiler: profile) -> int:
    """The most bytes that were allocated at once, from torch's own record of its allocations."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("name", SMALL)
class TestEverySystem:
    def test_it_is_counted(self, name: str) -> None:
        cost = count_step(small(name))
        assert cost.flops > 0
        assert cost.stages[0].name == "forward"

    def test_following_its_stages_changes_nothing(self, name: str) -> None:
        recipe = small(name)
        stages: list[str] = []
        results = []
        for follow in (False, True):
            torch.manual_seed(0)
            trainer = build_trainer(recipe, CPU)
            batch = batch_of(recipe, recipe.training.batch_size)
            if follow:
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
        refused=st.integers(0, 5),
    )
    def test_the_largest_is_found(
        self, constant: int, slope: int, limit: int, start: int, power: int, refused: int
    ) -> None:
        sizes = range(1, 400)
        asked = []

        def bytes_at(size: int) -> int:
            asked.append(size)
            return 0 if size <= refused else constant + slope * size**power

        found = largest_fitting(sizes, bytes_at, limit, start=start, power=power)
        fitting = [size for size in sizes if size > refused and bytes_at(size) <= limit]
        assert found == max(fitting, default=None)

    def test_a_straight_line_needs_few_looks(self) -> None:
        asked = []

        def bytes_at(size: int) -> int:
            asked.append(size)
            return 10**9 + 3 * 10**8 * size

        assert largest_fitting(range(1, 65_537), bytes_at, 10**13, start=1) == 33_330
        assert len(asked) <= 5

    def test_proposals_fit_and_the_next_larger_ones_do_not(self) -> None:
        recipe, limit = small("simgan"), 5_000_000
        batch, crop = propose(recipe, limit)
        assert (batch.crop_size, crop.batch_size) == (16, 1)
        for proposal, larger in (
            (batch, resize(recipe, batch_size=batch.batch_size + 1)),
            (crop, resize(recipe, crop_size=crop.crop_size + 4)),
        ):
            there = recipe.swap(dict(parse_setting(setting) for setting in proposal.settings)).check()
            assert needed_bytes(count_step(there)) == proposal.needed_bytes <= limit
            assert needed_bytes(count_step(larger)) > limit

    def test_no_batch_is_larger_than_the_data_set(self) -> None:
        assert propose(small("simgan"), 10**7, pairs=5)[0].batch_size == 5

    def test_where_no_batch_fits_the_largest_crop_of_single_pairs_is_offered(self) -> None:
        recipe = resize(small("simgan"), batch_size=64, crop_size=512)
        proposals = propose(recipe, 2_000_000)
        assert [proposal.batch_size for proposal in proposals] == [1]
        assert 16 <= proposals[0].crop_size < 512
        assert propose(recipe, 100_000) == ()

    def test_networks_that_take_powers_of_two(self) -> None:
        proposals = propose(small("cogan"), 10**9)
        assert proposals[1].crop_size in (64, 128, 256)
        assert "data.load_size" in proposals[1].settings[1]


class TestTime:
    """What follows from probes; how long steps take is no matter of tests."""

    def estimate(self, *seconds: float, recipe: Recipe):
        probes = [Probe(16 * 2**place, 1, 4.0**place, (each, each)) for place, each in enumerate(seconds)]
        return extrapolate(probes, recipe, StepCost(64.0, 0, 0, 0, 0, 0, 0, ()))

    def test_time_grows_as_the_work(self, tiny: Recipe) -> None:
        recipe = resize(tiny.resolve(), crop_size=128)
        estimate = self.estimate(1.0, 4.0, recipe=recipe)
        assert (estimate.low, estimate.seconds_per_step, estimate.high) == (64, 64, 64)

    def test_what_does_not_grow_is_the_least_to_expect(self, tiny: Recipe) -> None:
        recipe = resize(tiny.resolve(), crop_size=128)
        estimate = self.estimate(2.0, 5.0, recipe=recipe)  # one second, and one for each unit of work
        assert (estimate.low, estimate.seconds_per_step, estimate.high) == (65, 80, 80)

    def test_a_probe_of_full_size_is_the_answer(self, tiny: Recipe) -> None:
        probe = Probe(16, 1, 1.0, (2.0, 3.0, 5.0))
        estimate = extrapolate([probe], tiny.resolve(), count_step(tiny.resolve()))
        assert (estimate.low, estimate.seconds_per_step, estimate.high) == (2, 3, 5)

    def test_probes_end_with_the_recipe_itself(self, tiny: Recipe) -> None:
        probes = smaller_recipes(resize(tiny.resolve(), crop_size=144, batch_size=3))
        sizes = [(one.data.crop_size, one.training.batch_size) for one in probes]
        assert sizes == [(36, 1), (72, 1), (144, 1), (144, 3)]


class TestBench:
    @pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
    def test_it_computes_in_the_recipes_precision(self, precision: str) -> None:
        made = bench(cyclegan().swap({**TINY, "training.precision": precision}), device="cpu", steps=1)
        assert made.matrix_rate.arithmetic in (("fp32", "bf16") if precision == "auto" else (precision,))

    def test_its_figures_agree(self, tiny: Recipe) -> None:
        measured = bench(tiny, device="cpu", steps=3)
        assert len(measured.seconds) == 3
        assert measured.pairs_per_second == pytest.approx(1 / measured.seconds_per_step)
        assert measured.flops == count_step(tiny.resolve()).flops
        assert measured.flops_per_second == pytest.approx(measured.flops / measured.seconds_per_step)
        assert measured.share_of_matrix_rate == pytest.approx(
            measured.flops_per_second / measured.matrix_rate.flops_per_second
        )
        for shares in (measured.stages, measured.operators):
            assert sum(one.share for one in shares) == pytest.approx(1)
        assert [one.name for one in measured.stages][:3] == ["forward", "G losses", "G backward"]
        assert any("convolution" in one.name for one in measured.operators)

    def test_what_cannot_be_counted_is_measured_all_the_same(self, tiny: Recipe) -> None:
        measured = bench(with_system(tiny, Curious), device="cpu", steps=1)
        assert measured.flops is None
        assert measured.share_of_matrix_rate is None
        assert "a step cannot run on the meta device" in measured.notes[0]

    def test_a_phase_that_is_seldom_due_is_timed_in_its_turn(self, tiny: Recipe) -> None:
        measured = bench(with_system(tiny, Seldom), device="cpu", steps=4)
        assert len(measured.seconds) == 2  # of three steps each
        assert "D losses" in [one.name for one in measured.stages]

    def test_what_would_not_fit_is_refused_first(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.cost.measurement.available_memory", lambda device: 1000)
        with pytest.raises(TrainingError, match="cpu has 1 kB left; `gantoolkit plan` proposes what fits"):
            bench(tiny, device="cpu")

    def test_random_numbers_are_as_before(self, tiny: Recipe) -> None:
        before = torch.random.get_rng_state()
        bench(tiny, device="cpu", steps=1)
        assert torch.equal(torch.random.get_rng_state(), before)


class TestPlan:
    def test_steps_come_from_the_data_set(self, dataset: Path) -> None:
        made = plan(small("simgan"), data=dataset, device="cpu", memory=10**7)
        assert made.steps == 10
        assert made.hours == tuple(
            pytest.approx(10 * each / 3600) for each in (made.time.seconds_per_step, made.time.low, made.time.high)
        )
        assert made.proposals[0].batch_size == 5
        assert made.fits

    def test_without_room_for_any_step_there_is_no_time(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.cost.prediction.available_memory", lambda device: 1000)
        made = plan(tiny, device="cpu", steps=5)
        assert (made.time, made.hours, made.fits, made.proposals) == (None, None, False, ())

    def test_where_memory_is_not_known_nothing_is_proposed(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gantoolkit.cost.prediction.available_memory", lambda device: None)
        made = plan(tiny, device="cpu")
        assert (made.fits, made.proposals) == (None, ())

    def test_what_cannot_be_replayed_is_one_sentence(self, tiny: Recipe) -> None:
        with pytest.raises(RecipeError, match="can be measured but not predicted"):
            plan(with_system(tiny, Curious), device="cpu")


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
        written = json.loads((tmp_path / "b.json").read_text())
        assert written["flops"] == count_step(cyclegan().swap(TINY).resolve()).flops
        assert len(written["seconds"]) == 2

    def test_plan(self, command, dataset: Path, tmp_path: Path) -> None:
        arguments = ["plan", "simgan", *self.tiny, "--device=cpu"]
        code, output, _ = command(*arguments, "--memory=20MB", "--data", dataset, "--json", tmp_path / "p.json")
        assert code == 0
        assert re.search(r"to have +\S+ kB with a margin of 50%: fits into 20 MB", output)
        assert re.search(r"run +1,000 steps: ", output)
        written = json.loads((tmp_path / "p.json").read_text())
        assert len(written["proposals"]) == 2
        for proposal in written["proposals"]:
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
    def test_bad_input_is_one_sentence_and_exit_code_2(self, arguments: list[str], message: str, command) -> None:
        code, _, complaint = command(*arguments)
        assert code == 2
        assert message in complaint
        assert complaint.splitlines()[-1].startswith("error: ")

    def test_no_steps_are_refused(self, command) -> None:
        assert command("bench", "cyclegan", "--steps=0")[0] == 2


@given(size=st.integers(1, 10**15))
def test_a_size_that_is_written_is_read_back(size: int) -> None:
    assert parse_bytes(format_bytes(size).replace(",", "")) == pytest.approx(size, rel=0.005, abs=0.5)


@pytest.mark.parametrize("text", ["", "GB", "12 apples", "-3GB", "0", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(GantoolkitError, match="is not a memory size"):
        parse_bytes(text)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantoolkit.runtime.memory._CGROUP", tmp_path)
    everything = available_memory(CPU)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    assert available_memory(CPU) == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(CPU) == pytest.approx(everything, rel=0.5)


def test_memory_is_measured_also_where_the_system_keeps_an_old_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantoolkit.cost.memory_meter._PROC", Path("/nowhere"))
    meter = MemoryMeter(CPU)
    assert "since it began" in meter.kind
    assert meter.read() == 0 or meter.read() > 0


def test_a_matrix_rate_is_that_of_its_arithmetic() -> None:
    rate = measure_matrix_rate(CPU)
    assert rate.flops_per_second > 0
    assert rate.side >= 512
    assert rate.arithmetic == "fp32"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_memory_is_what_was_predicted() -> None:
    recipe = cyclegan(image_pool="none").swap({"data.crop_size": 128}).check()
    device = torch.device("cuda")
    meter = MemoryMeter(device)
    before = torch.cuda.memory_allocated(device)
    with time_steps(recipe, device) as steps:
        for _ in range(3):
            steps.step()
    assert meter.read() - before == pytest.approx(count_step(recipe).peak_bytes, rel=0.1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bench_and_plan_on_cuda(tiny: Recipe) -> None:
    measured = bench(tiny, device="cuda", steps=2)
    assert measured.memory_kind == "allocated by torch"
    assert sum(one.seconds for one in measured.operators) > 0
    assert plan(tiny, device="cuda").fits
