"""Streams: what it costs to write them durably, how soon they are read, what readers over HTTP cost.

General layout: `writes` asks, `measures` answers in a process of its own; `main` is `python -m bench streams`.
"""
