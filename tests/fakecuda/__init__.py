"""A stand-in for CUDA, for machines without a GPU: PyTorch's own host code runs, kernels do nothing.

`building` compiles it and says with which environment a program runs on it. `journal` tells that program what it asked of
CUDA: launches, copies, waits, captures. Values mean nothing. What the host does is the same as with a device: exceptions,
warnings, waits, allocations, the device and stream of every launch, and what a capture permits.
"""
