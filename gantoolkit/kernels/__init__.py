"""Faster forms of single operations; each gives what the plain one gives, to rounding."""
