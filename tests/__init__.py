"""Tests of safekey-peft; the tree mirrors the package."""
