"""What the benchmarks against phenaki-pytorch share: each side in a process of its own, at the same sizes."""
