"""Helpers that several tests, and the tests of the documentation, share."""
