"""Slow references, written from the equations and independent of the package."""
