"""The potion world: a laboratory that shows on two CPU cores what the losses do. See README.md."""
