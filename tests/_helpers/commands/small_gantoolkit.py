"""The command gantoolkit with small networks and short runs, for the documentation; downloads come from local files."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests/

from _helpers.serving import ModelServer, StudyServer

from gantoolkit.cli import main
from gantoolkit.demo import make_demo_set, session
from gantoolkit.recipes import find_recipe

SMALL_NETWORKS = ["generator.width=4", "discriminator.width=4"]
SMALL_STYLE_TRANSFER = ["steps=3", "levels=1", "data.load_size=64", "data.crop_size=64"]
SETTINGS = {
    "train": [*SMALL_NETWORKS, "training.epochs=1"],
    "ablate": [*SMALL_NETWORKS, "generator.blocks=1", "training.epochs=1"],
    "plan": [*SMALL_NETWORKS, "generator.blocks=1"],
    "bench": [*SMALL_NETWORKS, "generator.blocks=1"],
    "train-segmenter": ["backbone=resnet10t", "weights=none", "side=32", "epochs=1", "batch_size=2"],
}


def run(arguments: list[str]) -> int:
    settings = SETTINGS.get(arguments[0], []) if arguments else []
    match arguments:
        case ["train", *options] if "--resume" in options:
            settings = []
        case ["train", name, *_] if find_recipe(name).base == "gatys":
            settings = SMALL_STYLE_TRANSFER
        case ["study", "serve", *options]:
            with StudyServer(options):  # starts, answers, and stops
                return 0
        case ["serve", *options]:
            server = ModelServer(options)  # runs until the page ends, for `curl`
            server.start()
            Path("server").write_text(f"{server.port} {server.process.pid}")
            os._exit(0)
        case ["data", "download", _, *_]:
            arguments = [*arguments, "--archive", "public.zip"]
        case ["demo", *_]:
            recipe = session.find_recipe("demo").swap({"generator.width": 4, "training.epochs": 1})
            session.find_recipe = lambda name, changes: recipe.swap(changes)
            session.make_demo_set = lambda root: make_demo_set(root, crops=16)
    return main([*arguments, *(word for setting in settings for word in ("--set", setting))])


if __name__ == "__main__":  # worker processes import this file again
    sys.exit(run(sys.argv[1:]))
