"""Runs every block of code in README and docs, and every doctest in the package.

Shell blocks run in a folder of their own that holds small images where the pages speak of data sets. `gantoolkit` there is the
real command, with settings added that make networks and epochs small, and an archive in place of the web; `make demo` runs
that command, and of other targets it is checked that the Makefile knows them. `torchrun` starts that `gantoolkit` too, and in
place of SLURM its job's script is run here, on two machines that are both this one. The Hugging Face Hub is a stand-in too.
What `gantoolkit serve` serves can be asked with `curl` until the page ends.
"""

import doctest
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tests"))  # one way to make small images, shared with the tests

GANTOOLKIT = f"""#!{sys.executable}
import os
import sys
sys.path.insert(0, "{ROOT / "tests"}")
from gantoolkit.cli import main
from gantoolkit.demo import make_demo_set, session

if __name__ == "__main__":  # processes that load images import this file again
    arguments = sys.argv[1:]
    small = []
    if arguments[:1] == ["train"] and "--resume" not in arguments:
        from gantoolkit.recipes import find_recipe

        small = ["generator.width=4", "discriminator.width=4", "training.epochs=1"]
        if find_recipe(arguments[1]).base == "gatys":
            small = ["steps=3", "levels=1", "data.load_size=64", "data.crop_size=64"]
    if arguments[:1] == ["ablate"]:
        small = ["generator.width=4", "discriminator.width=4", "generator.blocks=1", "training.epochs=1"]
    if arguments[:1] in (["plan"], ["bench"]):
        small = ["generator.width=4", "generator.blocks=1", "discriminator.width=4"]
    if arguments[:1] == ["train-segmenter"]:
        small = ["backbone=resnet10t", "weights=none", "side=32", "epochs=1", "batch_size=2"]
    arguments += [word for setting in small for word in ("--set", setting)]
    if arguments[:2] == ["study", "serve"]:
        from _helpers.serving import StudyServer

        with StudyServer(arguments[2:]):  # until it answers
            sys.exit(0)
    if arguments[:1] == ["serve"]:
        from _helpers.serving import ModelServer

        server = ModelServer(arguments[1:])  # until the page ends, for `curl`
        server.start()
        with open("server", "w") as about:
            about.write(f"{{server.port}} {{server.process.pid}}")
        os._exit(0)
    if arguments[:2] == ["data", "download"] and len(arguments) > 2:
        arguments += ["--archive", "public.zip"]  # in place of the web
    if arguments[:1] == ["demo"]:
        recipe = session.find_recipe("demo").swap({{"generator.width": 4, "training.epochs": 1}})
        session.find_recipe = lambda name, changes: recipe.swap(changes)
        session.make_demo_set = lambda root: make_demo_set(root, crops=16)
    sys.exit(main(arguments))
"""
MAKE = f"""#!/bin/sh
case "$1" in
  demo) exec gantoolkit demo --out runs/demo ;;
  *) exec {shutil.which("make")} --silent --dry-run --directory {ROOT} "$@" > /dev/null ;;
esac
"""


PIP = f"""#!/bin/sh
# Into a folder of the page's own, in place of the environment that the tests run in; sources are read first, as if editable.
for path; do :; done
exec {sys.executable} -m pip install --quiet --no-deps --no-build-isolation --no-index --target "$DOCS_SITE" "${{path%%[*}}"
"""
# `-m gantoolkit` becomes the small command.
TORCHRUN = f"""#!/bin/bash
OMP_NUM_THREADS=1 exec {sys.executable} -m torch.distributed.run "${{@/#-m/--no-python}}"
"""
SBATCH = """#!/bin/bash
SLURM_NNODES=2 SLURM_JOB_ID=7 SLURM_JOB_NODELIST=both exec bash "$1"
"""
SCONTROL = """#!/bin/sh
printf '127.0.0.1\\n127.0.0.1\\n'
"""
SRUN = """#!/bin/bash
"$@" & first=$!
"$@" & second=$!
wait $first && wait $second
"""
# To the server that the page has started, on the port that was free.
CURL = f"""#!/bin/bash
read -r port process < server
exec {shutil.which("curl")} --silent --show-error "${{@/8766/$port}}"
"""
PYTEST = f"""#!/bin/sh
exec {sys.executable} -m pytest -p no:cacheprovider "$@"
"""


COMMANDS = {
    "curl": CURL,
    "gantoolkit": GANTOOLKIT,
    "make": MAKE,
    "pip": PIP,
    "pytest": PYTEST,
    "torchrun": TORCHRUN,
    "sbatch": SBATCH,
    "scontrol": SCONTROL,
    "srun": SRUN,
}


def set_up(namespace: dict[str, Any]) -> None:
    """Go to a new folder with small data sets, and put the small commands first on the path."""
    import torch
    from _helpers.films import make_video
    from _helpers.hub_server import TOKEN, HubServer
    from _helpers.small import make_dataset, make_image, official_resnet
    from huggingface_hub import constants

    folder = Path(tempfile.mkdtemp(prefix="gantoolkit-docs-"))
    hub = HubServer()
    hub.__enter__()
    namespace["_before"] = (
        folder,
        Path.cwd(),
        dict(os.environ),
        hub,
        constants.HF_HUB_CACHE,
        constants.HF_HUB_DISABLE_XET,
    )
    make_dataset(folder / "data" / "horse2zebra", count_A=2, count_B=2, test=1)
    make_dataset(folder / "data" / "pairs", count_A=2, count_B=2, test=0)
    make_dataset(folder / "data" / "cityscapes", count_A=3, count_B=3, test=3)
    shutil.make_archive(str(folder / "public"), "zip", folder / "data" / "horse2zebra")
    (folder / "photographs").mkdir()
    make_image(1).save(folder / "photographs" / "one.jpg")
    make_image(2).save(folder / "horse.jpg")
    make_video(folder / "film.mp4", frames=5)
    torch.save(official_resnet(2, 2, False, True, ""), folder / "latest_net_G_A.pth")
    for name, text in COMMANDS.items():
        command = folder / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(text)
        command.chmod(0o755)
    os.chdir(folder)
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["GANTOOLKIT_CACHE"] = str(folder / "cache")
    os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    # In this process the package may have read its environment already.
    constants.HF_HUB_CACHE, constants.HF_HUB_DISABLE_XET = str(folder / "hf" / "hub"), True
    os.environ["DOCS_SITE"] = str(folder / "site")
    os.environ["PYTHONPATH"] = f"{folder / 'gantoolkit-stripes' / 'src'}{os.pathsep}{folder / 'site'}"


def tear_down(namespace: dict[str, Any]) -> None:
    from huggingface_hub import constants

    folder, before, environment, hub, *kept = namespace["_before"]
    constants.HF_HUB_CACHE, constants.HF_HUB_DISABLE_XET = kept
    hub.__exit__(None, None, None)
    if (folder / "server").is_file():
        os.kill(int((folder / "server").read_text().split()[1]), signal.SIGTERM)
    os.chdir(before)
    os.environ.clear()
    os.environ.update(environment)
    shutil.rmtree(folder)


def run_shell(example: Example) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


def check_recipe(example: Example) -> None:
    from gantoolkit.recipes import Recipe

    Recipe.from_toml(example.parsed).check()


pages = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("bash", run_shell), CodeBlockParser("toml", check_recipe)],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/**/*.md"],
    path=str(ROOT),
    setup=set_up,
    teardown=tear_down,
)
docstrings = Sybil(
    parsers=[DocTestParser(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)],
    patterns=["gantoolkit/*.py", "gantoolkit/**/*.py"],
    path=str(ROOT),
)
pytest_collect_file = (pages + docstrings).pytest()
