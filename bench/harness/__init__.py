"""The parts of `bench/compare`; Python's standard library only."""
