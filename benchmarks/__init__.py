"""Measurements: equality with the official implementation, speed and memory."""
