"""A program for `torchrun`: every process takes one step on its share of a batch and writes the results.

python step_together.py RECIPES.json OUT: RECIPES.json lists [name, recipe as TOML, images, float64 or float32].
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from _helpers.small import batch_of
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.arithmetic import Arithmetic
from gantoolkit.runtime.seeds import derive_seed
from gantoolkit.training import build_trainer
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group
from gantoolkit.training.interrupts import Interrupts
from gantoolkit.training.trainer import Trainer


def take_step(
    recipe: Recipe, images: int, dtype: torch.dtype, process_group: ProcessGroup = SINGLE_PROCESS
) -> dict[str, torch.Tensor]:
    """Take a step on `images` pairs that all processes share; returns losses, gradients, weights and buffers."""
    trainer = build_trainer(recipe, torch.device("cpu"), Arithmetic(), process_group)
    for network in trainer.system.networks.values():
        network.to(dtype)
    batch = {domain: pixels.to(dtype) for domain, pixels in batch_of(recipe, images).items()}
    rank = process_group.rank
    size, remainder = divmod(images, process_group.world_size)
    first = rank * size + min(rank, remainder)
    last = first + size + (rank < remainder)
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
    with join_process_group(torch.device("cpu"), Interrupts()) as process_group:
        rank = process_group.rank
        torch.use_deterministic_algorithms(True)
        for name, text, images, dtype in json.loads(recipes.read_text()):
            recipe = Recipe.from_toml(text, where=name).resolve()
            state = take_step(recipe, images, getattr(torch, dtype), process_group)
            save_file(state, out / f"{name}-{dtype}.{rank}.safetensors")
        notes = [
            process_group.all_gather_object(None),
            process_group.all_gather_object({"from": rank} if rank else None),
            process_group.broadcast_object(["é", rank]),
            [derive_seed(0, "step", 1, rank=rank)],
        ]
        gathered = process_group.gather({"own": torch.full((2 + rank,), rank)})
        shared = process_group.broadcast_tensors({"it": torch.arange(3) + rank, "none": torch.zeros(0, 2)})
        notes.append(
            [[tensors["own"].tolist() for tensors in gathered], shared["it"].tolist(), list(shared["none"].shape)]
        )
        (out / f"notes.{rank}.json").write_text(json.dumps(notes))
    threads = Path("/proc/self/task")  # Linux only
    names = [(thread / "comm").read_text().strip() for thread in threads.iterdir()] if threads.is_dir() else []
    (out / f"threads.{rank}.json").write_text(json.dumps(names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
