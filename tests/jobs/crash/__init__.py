"""Processes killed, stopped and stalled at every place, and a ledger outside of them that counts what happened.

General layout:

- `ledger` is what cannot be undone: a file that steps write to while they run.
- `work` declares the jobs that are attacked, `programs` the processes that run them, `traps` the places in them.
- `forks` makes processes quickly: a server that has imported everything and forks.
- `checker` reads the ledger and the store when all is over, and names every broken promise.

The adversary with several workers is `bench/fleet`, which uses these parts; `python -m bench fleet --store sqlite` runs
it on one file for as long as one likes.

LASTCALL_LONG=1 plays every place instead of a sample. Seeds are printed; LASTCALL_SEED=n plays one again.
"""
