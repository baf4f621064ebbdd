"""``python -m lastcall`` is the ``lastcall`` command."""

from __future__ import annotations

from lastcall.cli import main

if __name__ == "__main__":
    main()
