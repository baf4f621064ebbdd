"""The in-process core. Standard library only; private: import its names from `lastcall`."""
