"""Durable jobs: work that survives the process. Being built."""
