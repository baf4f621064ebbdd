"""Files that are checked and never run.

`make types` runs mypy in strict mode over this directory as well. A file here uses the public face the way a
typed program would: `assert_type` pins what a call returns, and a call that must be refused carries a
`# type: ignore[code]`, which mypy itself reports as soon as it is no longer needed.
"""
