"""The parts of `scripts/bench` and `scripts/bench-scale`."""
