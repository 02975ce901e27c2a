"""`--set field=value`."""

from gantoolkit.cli.settings import parse_settings
from gantoolkit.recipes import cyclegan


def test_the_last_change_of_a_field_counts_where_it_stands() -> None:
    """The name of a block replaces the block, with the parameters that were set before."""
    changes = parse_settings(["generator.width=4", "generator=unet", "generator.width=8"])
    assert list(changes.items()) == [("generator", "unet"), ("generator.width", 8)]
    assert cyclegan().swap(changes) == cyclegan().swap(generator={"name": "unet", "width": 8})
