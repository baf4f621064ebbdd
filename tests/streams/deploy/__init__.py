"""Readers of jobs' logs through a proxy, while the servers behind it are replaced."""
