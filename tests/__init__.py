"""The project's tests; the directories below mirror those of the package."""
