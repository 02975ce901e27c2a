"""Randomness as a pure function of a seed and a purpose.

Nothing here keeps state, so a resumed run draws the same numbers as an uninterrupted one.
"""

import hashlib

__all__ = ["derive_seed"]


def derive_seed(seed: int, *purpose: int | str, rank: int = 0) -> int:
    """Derive an independent seed, 0 ≤ s < 2⁶³, for one purpose.

    Args:
        seed: The run's seed.
        purpose: What the numbers are for, such as `("crop", "A", epoch, index)`.
        rank: The rank of the process, if each process of a distributed run needs its own draws. Rank 0 draws the numbers
            of a run in one process.

    >>> derive_seed(0, "pool", "A") == derive_seed(0, "pool", "A")
    True
    >>> derive_seed(0, "pool", "A") == derive_seed(0, "pool", "B")
    False
    """
    text = repr((seed, *purpose, *(("process", rank) if rank else ()))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
