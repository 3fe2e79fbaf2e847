"""Hosts: trainers that hand over batches and log the breakdown."""
