"""In-process benchmarks: what tracking a task costs, as a ratio to asyncio alone.

General layout:

- `__main__.py`   the command: `python -m bench [spawn] [memory] [stop] [import] [--quick] [--json FILE] [--svg FILE]`
- `catalog.py`    who takes part, in which row, and which package it needs
- `contenders/`   one small class per way of starting tasks; the only files that import the libraries compared
- `child.py`      the process in which one contender is measured against its floor
- `imports.py`    the import row: fresh interpreters, nothing else
- `runner.py`     starts the children, pairs the rounds, makes the rows
- `rows.py`       a row and the ratio of paired rounds
- `report.py`     the table, the JSON file
- `chart.py`      the SVG bar chart

Nothing here is part of the package, and nothing here asserts a time. `README.md` says how to read the figures.
"""
