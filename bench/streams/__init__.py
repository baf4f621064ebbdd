"""Streams: what it costs to write them durably, how soon they are read, what readers over HTTP cost.

General layout: `writes` asks, `measures` answers in a process of its own; `readers` asks, `http_crowd` answers, with
the server `http_serving` in one more; `main` is `python -m bench streams`.
"""
