"""The machine that a run uses: devices, precision, memory, random numbers, processes."""
