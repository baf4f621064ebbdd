"""Engines: where durable jobs live. Each implements the port `lastcall.jobs._engine.Engine`; none knows the others."""

from .sqlite import SqliteEngine as SqliteEngine
from .sqlite import from_url as from_url
