"""The ways of starting tasks. Each file imports one family of libraries, so that a missing one hurts nobody else."""
