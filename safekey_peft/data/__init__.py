"""Data room: rows → spans → roles → batches."""
