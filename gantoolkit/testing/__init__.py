"""Conformance kit for plugin authors: the rules of each kind of block, and hypothesis strategies for the inputs of blocks.

`gantoolkit check NAME` tests the same rules from the command line. The package requires the extra `gantoolkit[testing]`.
"""

from gantoolkit.testing.items import Check, Checks
from gantoolkit.testing.kit import BrokenRuleError, Draw, Outcome, Rule, Rulebook, Subject
from gantoolkit.testing.rules import RULEBOOKS
from gantoolkit.testing.strategies import image_batches, image_pairs, logits, seeds

generator_checks = Checks("generators")
discriminator_checks = Checks("discriminators")
coupled_generator_checks = Checks("coupled_generators")
coupled_discriminator_checks = Checks("coupled_discriminators")
feature_extractor_checks = Checks("feature_extractors")
adversarial_loss_checks = Checks("adversarial_losses")
image_loss_checks = Checks("image_losses")
image_pool_checks = Checks("image_pools")
scheduler_checks = Checks("schedulers")
initializer_checks = Checks("initializers")
optimizer_checks = Checks("optimizers")
metric_checks = Checks("metrics")
system_checks = Checks("systems")
recipe_checks = Checks("recipes")

__all__ = [
    "RULEBOOKS",
    "BrokenRuleError",
    "Check",
    "Checks",
    "Draw",
    "Outcome",
    "Rule",
    "Rulebook",
    "Subject",
    "adversarial_loss_checks",
    "coupled_discriminator_checks",
    "coupled_generator_checks",
    "discriminator_checks",
    "feature_extractor_checks",
    "generator_checks",
    "image_batches",
    "image_loss_checks",
    "image_pairs",
    "image_pool_checks",
    "initializer_checks",
    "logits",
    "metric_checks",
    "optimizer_checks",
    "recipe_checks",
    "scheduler_checks",
    "seeds",
    "system_checks",
]
