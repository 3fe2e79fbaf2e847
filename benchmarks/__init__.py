"""Benchmarks: what the losses cost. Timings live here and are never assertions in tests."""
