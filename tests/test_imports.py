"""Imports are silent and load no heavy libraries; each test starts a new interpreter."""

import subprocess
import sys


def run_python(code: str) -> str:
    completed = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert completed.stderr == ""
    return completed.stdout.strip()


def test_importing_gantoolkit_is_silent_and_imports_no_torch() -> None:
    assert run_python("import sys, gantoolkit; print('torch' in sys.modules)") == "False"


def test_listing_blocks_imports_no_torch() -> None:
    code = (
        "import sys, gantoolkit.plugins as p; [r.names() for r in p.REGISTRIES.values()]; print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_creating_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys; from gantoolkit.recipes import cyclegan; cyclegan(generator='unet'); print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_heavy_libraries_are_imported_on_use() -> None:
    code = (
        "import sys, gantoolkit.run, gantoolkit.blocks.losses;"
        "print([name for name in ('kornia', 'timm', 'torchvision', 'matplotlib', 'tensorboard') if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_networks_on_the_cpu_import_no_triton() -> None:
    code = (
        "import sys, torch; from gantoolkit.blocks.generators import ResNetGenerator;"
        "ResNetGenerator(3, 3, blocks=1, width=2)(torch.zeros(1, 3, 8, 8)).sum().backward();"
        "print('triton' in sys.modules)"
    )
    assert run_python(code) == "False"
