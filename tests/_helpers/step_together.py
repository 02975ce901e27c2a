"""A program for `torchrun`: each process takes one step on its share of a batch and writes what that came to.

python step_together.py RECIPES.json OUT: a list of [name, recipe as TOML, images, float64 or float32].
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from _helpers.small import batch_of
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training import build_trainer
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group
from gantoolkit.training.interrupts import Interrupts
from gantoolkit.training.trainer import Trainer


def take_step(
    recipe: Recipe, images: int, dtype: torch.dtype, processes: ProcessGroup = SINGLE_PROCESS
) -> dict[str, torch.Tensor]:
    """What a step on `images` pairs, shared by all processes, comes to: losses, gradients, weights, buffers."""
    trainer = build_trainer(recipe, torch.device("cpu"), "fp32", processes)
    for network in trainer.system.networks.values():
        network.to(dtype)
    batch = {domain: pixels.to(dtype) for domain, pixels in batch_of(recipe, images).items()}
    size, more = divmod(images, processes.count)
    first = processes.number * size + min(processes.number, more)
    last = first + size + (processes.number < more)
    own = slice(first, last) if last > first else slice(0, 1)
    trainer.begin_epoch(0)
    torch.manual_seed(0)
    result = trainer.step({domain: pixels[own] for domain, pixels in batch.items()}, 0, (last - first) / images)
    assert result.skipped is None
    return {f"loss/{name}": loss.clone() for name, loss in result.losses.items()} | state_of(trainer)


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for name, network in trainer.system.networks.items():
        for key, parameter in network.named_parameters():
            if parameter.grad is not None:
                state[f"gradient/{name}/{key}"] = parameter.grad.clone().contiguous()
        for key, tensor in network.state_dict().items():
            state[f"network/{name}/{key}"] = tensor.clone().contiguous()
    return state


def main(recipes: Path, out: Path) -> None:
    with join_process_group(torch.device("cpu"), Interrupts()) as processes:
        torch.use_deterministic_algorithms(True)
        for name, text, images, dtype in json.loads(recipes.read_text()):
            recipe = Recipe.from_toml(text, where=name).resolve()
            state = take_step(recipe, images, getattr(torch, dtype), processes)
            save_file(state, out / f"{name}-{dtype}.{processes.number}.safetensors")
        notes = [
            processes.exchange(None),
            processes.exchange({"from": processes.number} if processes.number else None),
            processes.broadcast_object(["é", processes.number]),
            [derive_seed(0, "step", 1, process=processes.number)],
        ]
        gathered = processes.gather({"own": torch.full((2 + processes.number,), processes.number)})
        shared = processes.share({"it": torch.arange(3) + processes.number, "none": torch.zeros(0, 2)})
        notes.append(
            [[tensors["own"].tolist() for tensors in gathered], shared["it"].tolist(), list(shared["none"].shape)]
        )
        (out / f"notes.{processes.number}.json").write_text(json.dumps(notes))
    threads = Path("/proc/self/task")  # which Linux has
    names = [(thread / "comm").read_text().strip() for thread in threads.iterdir()] if threads.is_dir() else []
    (out / f"threads.{processes.number}.json").write_text(json.dumps(names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
