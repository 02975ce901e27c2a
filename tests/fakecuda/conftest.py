"""Programs that run on the stand-in for CUDA."""

from collections.abc import Callable

import pytest

from fakecuda.building import MissingRequirementError, build
from fakecuda.cases import Outcomes, run_program


@pytest.fixture(scope="session")
def program() -> Callable[..., Outcomes]:
    """Run a program on the stand-in; the outcomes of its cases. Skips where the stand-in cannot be built."""
    try:
        build()
    except MissingRequirementError as error:
        pytest.skip(str(error))
    return run_program
