"""Stands in for a training run that takes long."""

import time

print("asleep", flush=True)
time.sleep(120)
