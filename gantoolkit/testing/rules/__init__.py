"""The rules of every kind of block, by kind."""

from gantoolkit.testing.kit import Rulebook
from gantoolkit.testing.rules.discriminators import coupled_discriminators, discriminators
from gantoolkit.testing.rules.features import feature_extractors
from gantoolkit.testing.rules.generators import coupled_generators, generators
from gantoolkit.testing.rules.initializers import initializers
from gantoolkit.testing.rules.losses import adversarial_losses, image_losses
from gantoolkit.testing.rules.metrics import metrics
from gantoolkit.testing.rules.optimizers import optimizers
from gantoolkit.testing.rules.pools import image_pools
from gantoolkit.testing.rules.recipes import recipes
from gantoolkit.testing.rules.schedulers import schedulers
from gantoolkit.testing.rules.systems import systems

__all__ = ["RULEBOOKS"]

RULEBOOKS: dict[str, Rulebook] = {
    book.kind: book
    for book in (
        generators,
        discriminators,
        coupled_generators,
        coupled_discriminators,
        feature_extractors,
        adversarial_losses,
        image_losses,
        image_pools,
        schedulers,
        initializers,
        optimizers,
        metrics,
        systems,
        recipes,
    )
}
