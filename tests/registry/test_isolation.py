"""Broken distributions, built and installed with pip: each breaks only what uses it, and the error says what is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gantoolkit as package

pytestmark = pytest.mark.slow(reason="builds and installs packages")

GENERATOR = '''
from torch import nn


class Whole(nn.Module):
    """A generator of one convolution."""

    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.Tanh())

    def forward(self, images):
        return self.layers(images)


class Stumbles(Whole):
    """A generator that raises an error."""

    def forward(self, images):
        return {}["missing"]
'''

# By distribution: the source of its module, and its entry points (group, name, object).
DISTRIBUTIONS: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "acme-whole": (
        GENERATOR,
        [
            ("v1.generators", "whole", "Whole"),
            ("v1.generators", "twice", "Whole"),
            ("v1.generators", "stumbles", "Stumbles"),
        ],
    ),
    "beta-same-name": (GENERATOR, [("v1.generators", "twice", "Whole")]),
    "bad-raises": ("raise RuntimeError('the moon is in the wrong house')", [("v1.generators", "raises", "Block")]),
    "bad-exits": ("import sys\nsys.exit(7)", [("v1.generators", "exits", "Block")]),
    "bad-dependency": ("import no_such_dependency", [("v1.image_losses", "needy", "Block")]),
    "bad-type": ("Block = 3", [("v1.generators", "number", "Block")]),
    "bad-target": ("", [("v1.generators", "nothing", "Block")]),
    "bad-builtin": (GENERATOR, [("v1.generators", "unet", "Whole")]),
    "old-gan": (GENERATOR, [("v0.generators", "ancient", "Whole")]),
    "new-gan": (GENERATOR, [("v9.generators", "futuristic", "Whole")]),
    "odd-kind": (GENERATOR, [("v1.wallpapers", "roses", "Whole")]),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all distributions are installed."""
    folder = tmp_path_factory.mktemp("isolation")
    for name, (source, entry_points) in DISTRIBUTIONS.items():
        package = name.replace("-", "_")
        (folder / name).mkdir()
        (folder / name / f"{package}.py").write_text(source)
        groups = "\n".join(
            f'[project.entry-points."gantoolkit.{group}"]\n'
            + "\n".join(f'{block} = "{package}:{target}"' for g, block, target in entry_points if g == group)
            for group in dict.fromkeys(group for group, _, _ in entry_points)
        )
        (folder / name / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            f'[project]\nname = "{name}"\nversion = "1.2"\n{groups}\n'
            f'[tool.hatch.build.targets.wheel]\ninclude = ["{package}.py"]\n'
        )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    paths = [str(folder / name) for name in DISTRIBUTIONS]
    target = folder / "site"
    result = subprocess.run([*command, "--target", str(target), *paths], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return target


ALL = ",".join(DISTRIBUTIONS)


def gantoolkit(
    site: Path, *arguments: str, plugins: str = ALL, traceback: str = "0"
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "GANTOOLKIT_PLUGINS": plugins,
        "GANTOOLKIT_TRACEBACK": traceback,
        "NO_COLOR": "1",
    }
    command = [sys.executable, "-m", "gantoolkit", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site.parent)
    assert ("Traceback" in result.stderr) == (traceback != "0"), result.stderr
    return result


def python(site: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "GANTOOLKIT_PLUGINS": ALL}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return result.stdout.strip()


def test_listing_shows_every_name(site: Path) -> None:
    result = gantoolkit(site, "blocks", "generators")
    assert result.returncode == 0
    assert result.stdout.strip() == (
        "generators: ancient, exits, futuristic, nothing, number, raises, resnet, stumbles, acme-whole:twice, "
        "beta-same-name:twice, bad-builtin:unet, gantoolkit:unet, whole"
    )


def test_listing_imports_no_plugin_and_no_torch(site: Path) -> None:
    code = (
        "import sys; from gantoolkit.cli import main; main(['blocks']);"
        "print([name for name in sys.modules if name.split('_')[0] in ('acme', 'beta', 'bad', 'old', 'new', 'torch')])"
    )
    assert python(site, code).splitlines()[-1] == "[]"


STATES = {
    ("acme-whole", "whole"): "ok",
    ("acme-whole", "twice"): "'twice' is offered by acme-whole and beta-same-name; write it as '<package>:twice'",
    ("beta-same-name", "twice"): "'twice' is offered by acme-whole and beta-same-name; write it as '<package>:twice'",
    ("bad-raises", "raises"): "cannot be loaded (bad_raises:Block): RuntimeError: the moon is in the wrong house",
    ("bad-exits", "exits"): "cannot be loaded (bad_exits:Block): SystemExit: 7",
    ("bad-dependency", "needy"): "ModuleNotFoundError: No module named 'no_such_dependency'",
    ("bad-type", "number"): "(bad_type:Block) is a int; a class or a function is needed",
    ("bad-target", "nothing"): "AttributeError: module 'bad_target' has no attribute 'Block'",
    ("bad-builtin", "unet"): "'unet' is offered by bad-builtin and gantoolkit; write it as '<package>:unet'",
    ("old-gan", "ancient"): "is for plugin API v0, this gantoolkit has v1; upgrade old-gan",
    ("new-gan", "futuristic"): "is for plugin API v9, this gantoolkit has v1; upgrade gantoolkit",
    ("odd-kind", "roses"): "gantoolkit knows no kind 'wallpapers'",
}


def test_plugins_shows_each_distribution_with_its_error(site: Path) -> None:
    result = gantoolkit(site, "plugins")
    assert result.returncode == 0
    for (distribution, block), state in STATES.items():
        (line,) = [
            line for line in result.stdout.splitlines() if line.split()[0] == distribution and f" {block} " in line
        ]
        assert line.split()[1] == "1.2"
        assert line.endswith(state), line


@pytest.mark.parametrize(("distribution", "block"), [key for key in STATES if key[0] not in ("acme-whole", "odd-kind")])
def test_using_a_broken_block_prints_one_sentence_with_the_cause(distribution: str, block: str, site: Path) -> None:
    kind = "image_losses" if block == "needy" else "generators"
    result = gantoolkit(site, "blocks", "show", f"{kind}/{block}")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.strip().endswith(STATES[distribution, block])


def test_all_other_blocks_work(site: Path) -> None:
    code = (
        "from gantoolkit.recipes import cyclegan; print(cyclegan(generator='whole').check().name, cyclegan().check().name,"
        " cyclegan(generator='gantoolkit:unet').check().name, cyclegan(generator='beta-same-name:twice').check().name)"
    )
    assert python(site, code) == "cyclegan cyclegan cyclegan cyclegan"
    assert gantoolkit(site, "check", "generators/whole").returncode == 0


def test_plugins_can_be_disabled_or_allowed_one_by_one(site: Path) -> None:
    assert gantoolkit(site, "blocks", "generators", plugins="0").stdout == "generators: resnet, unet\n"
    names = gantoolkit(site, "blocks", "generators", plugins="Acme_Whole").stdout
    assert names == "generators: resnet, stumbles, twice, unet, whole\n"
    result = gantoolkit(site, "blocks", "show", "whole", plugins="0")
    assert result.returncode == 2
    assert "GANTOOLKIT_PLUGINS" in result.stderr


def test_error_in_a_plugin_is_reported_with_file_and_line(site: Path) -> None:
    dataset = site.parent / "data"
    dataset.mkdir(exist_ok=True)
    arguments = [
        "train",
        "cyclegan",
        "--data",
        str(dataset),
        "--out",
        str(dataset / "run"),
        "--set",
        "generator=stumbles",
    ]
    result = gantoolkit(site, *arguments)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "KeyError: 'missing'" in result.stderr
    assert "acme_whole.py, line 22" in result.stderr
    assert "a mistake in acme-whole" in result.stderr
    result = gantoolkit(site, *arguments, traceback="1")
    assert result.stderr.endswith("KeyError: 'missing'\n")


def test_gantoolkit_does_not_name_the_plugins_of_this_repository() -> None:
    root = Path(package.__file__).parent
    plugins = root.parent / "plugins"
    if not plugins.is_dir():
        pytest.skip("the folder plugins/ is not beside the package: this is not a checkout")
    names = {plugin.name.removeprefix("gantoolkit-") for plugin in plugins.glob("gantoolkit-*")}
    assert names >= {"cut", "vit", "augment"}
    pattern = re.compile("|".join(rf"gantoolkit[-_]{name}\b" for name in names))
    sources = [path for path in root.rglob("*") if path.suffix in (".py", ".toml", ".jinja")]
    assert [path for path in sources if pattern.search(path.read_text())] == []
