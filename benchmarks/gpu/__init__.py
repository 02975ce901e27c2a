"""All GPU checks and benchmarks, on a CUDA machine that needs no network: correctness first, then speed.

`python -m benchmarks.gpu` runs the stages of `stages.py`, `python -m benchmarks.gpu.bundle` prepares what such a machine lacks.
"""
