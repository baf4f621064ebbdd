"""The servers of a run, for those who need one: started at its beginning, ended at its end."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..postgres.server import PostgresServer
from .catalog import Setting
from .install_peers import installed, interpreter
from .redis_server import RedisServer


@dataclass(frozen=True)
class Servers:
    """`None`: nobody here needs it, or it is not installed."""

    redis: RedisServer | None = None
    postgres: PostgresServer | None = None

    def new_url(self, setting: Setting) -> str:
        """Where that setting has a database which nobody else has; empty for a file."""
        if setting.store == "redis" and self.redis is not None:
            return self.redis.new_url()
        if setting.store == "postgres" and self.postgres is not None:
            return self.postgres.new_url()
        return ""


@contextmanager
def opened(peers: Path | None, settings: Sequence[Setting]) -> Iterator[Servers]:
    """The servers of those settings that can be measured."""
    wanted = {setting.store for setting in settings if not setting.problem(peers)}
    with ExitStack() as stack:
        redis = postgres = None
        if "redis" in wanted and peers is not None and installed(peers, "redis"):
            redis = stack.enter_context(RedisServer(interpreter(peers, "redis").with_name("redis-server")))
        if "postgres" in wanted:
            postgres = stack.enter_context(PostgresServer())
        yield Servers(redis, postgres)
