"""One small file per library. They run in the interpreter of that library: `python -m bench.jobs.peers MODULE VERB`."""
