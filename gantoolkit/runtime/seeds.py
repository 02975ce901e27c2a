"""Randomness as a pure function: a seed and a purpose give the same numbers wherever and whenever they are asked for.

Nothing here keeps state, so a run that was killed continues with the very draws that it would have made.
"""

import hashlib

__all__ = ["derive_seed"]


def derive_seed(seed: int, *purpose: int | str, rank: int = 0) -> int:
    """Make an independent seed, 0 ≤ s < 2⁶³, for one purpose.

    Args:
        seed: The run's seed.
        purpose: What the numbers are for, such as `("crop", "A", epoch, index)`.
        rank: Which of the processes that share a run draws them, where each has draws of its own; the first one's are
            those of a run in one process.

    >>> derive_seed(0, "pool", "A") == derive_seed(0, "pool", "A")
    True
    >>> derive_seed(0, "pool", "A") == derive_seed(0, "pool", "B")
    False
    """
    text = repr((seed, *purpose, *(("process", rank) if rank else ()))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
