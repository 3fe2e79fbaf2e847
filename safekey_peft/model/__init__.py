"""Model room: attach the safety head, probe isolation, run the one forward, read and write head files."""
