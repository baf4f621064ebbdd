"""What streams are, in the fewest words: lists in a dictionary. A fork is a copy. Written from the port's rules."""

from dataclasses import dataclass, field
from typing import NamedTuple

from lastcall.streams._port import Fork, NewStream, Outcome, Position, Producer, Write

END_TYPES = ("application/json", "text/plain")


class Listed(NamedTuple):
    """What a list says of a stream."""

    name: str
    content_type: str
    closed: bool
    position: Position
    due: float | None
    created_at: float
    updated_at: float
    fork: Fork | None
    inherited: int


@dataclass
class ModelStream:
    content_type: str
    ttl_seconds: int | None
    closed: bool
    fork: Fork | None
    source: "ModelStream | None"
    due: float | None = None
    entries: list[tuple[int, bytes]] = field(default_factory=list)  # (which write, data)
    writes: int = 0
    writer_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    deleted: bool = False
    forks: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    inherited: int = 0

    def position(self, seq: int) -> Position:
        return Position(seq, sum(len(data) for _, data in self.entries[:seq]))


class Model:
    """The verbs of the port, without retention."""

    def __init__(self) -> None:
        self.now = 0.0
        self.streams: dict[str, ModelStream] = {}

    def look(self, name: str) -> ModelStream | Outcome:
        stream = self.streams.get(name)
        if stream is None:
            return Outcome.UNKNOWN
        if stream.deleted or (stream.due is not None and stream.due <= self.now):
            return Outcome.GONE if stream.forks else Outcome.UNKNOWN
        return stream

    def heads(self, prefix: str, after: str, limit: int) -> list[Listed]:
        names = sorted(name for name in self.streams if name.startswith(prefix) and name > after)
        there = [(name, stream) for name in names if isinstance(stream := self.look(name), ModelStream)]
        return [
            Listed(
                name,
                stream.content_type,
                stream.closed,
                stream.position(len(stream.entries)),
                stream.due,
                stream.created_at,
                stream.updated_at,
                stream.fork,
                stream.inherited,
            )
            for name, stream in there[:limit]
        ]

    def touch(self, stream: ModelStream) -> None:
        if stream.ttl_seconds is not None:
            stream.due = self.now + stream.ttl_seconds

    def create(self, new: NewStream) -> Outcome:
        self._sweep()
        there = self.streams.get(new.name)
        if there is not None:
            if there.deleted or self.look(new.name) is not there:
                return Outcome.CONFLICT
            inherits = new.fork is not None
            same_type = new.content_type == there.content_type or (new.content_type is None and inherits)
            same_end = new.ttl_seconds == there.ttl_seconds or (new.ttl_seconds is None and inherits)
            same = (there.fork, there.closed) == (new.fork, new.closed) and same_type and same_end
            return Outcome.EXISTS if same else Outcome.CONFLICT
        stream = ModelStream(new.content_type or "", new.ttl_seconds, new.closed, new.fork, None)
        if new.fork is not None:
            refusal = self._inherit(stream, new)
            if refusal is not None:
                return refusal
        for data in new.entries:
            stream.entries.append((stream.writes + 1, data))
        stream.writes += 1
        stream.created_at = stream.updated_at = self.now
        self.touch(stream)
        if stream.source is not None:
            stream.source.forks += 1
        self.streams[new.name] = stream
        return Outcome.CREATED

    def _inherit(self, stream: ModelStream, new: NewStream) -> Outcome | None:
        assert new.fork is not None
        source = self.look(new.fork.source)
        if source is Outcome.GONE:
            return Outcome.SOURCE_GONE
        if isinstance(source, Outcome):
            return Outcome.UNKNOWN_SOURCE
        if new.content_type not in (None, source.content_type):
            return Outcome.WRONG_TYPE
        at = source.position(len(source.entries)) if new.fork.at is None else new.fork.at
        if at.seq > len(source.entries) or at != source.position(at.seq):
            return Outcome.BAD_FORK
        inherited, rest = source.entries[: at.seq], source.entries[at.seq :]
        if new.fork.further:
            batch = [data for write, data in rest if write == rest[0][0]]
            if source.content_type == "application/json":
                if len(batch) < new.fork.further:
                    return Outcome.BAD_FORK
                inherited = [*inherited, *rest[: new.fork.further]]
            else:
                if not rest or len(rest[0][1]) < new.fork.further:
                    return Outcome.BAD_FORK
                if len(rest[0][1]) > new.fork.further:  # a part of an entry is an entry of the fork's own
                    stream.inherited = -1
                inherited = [*inherited, (rest[0][0], rest[0][1][: new.fork.further])]
        stream.content_type = source.content_type
        if new.ttl_seconds is None:
            stream.ttl_seconds = source.ttl_seconds
        stream.entries = list(inherited)
        stream.inherited += len(inherited)
        stream.writes = source.writes + 1
        stream.source = source
        return None

    def append(self, write: Write) -> Outcome:
        stream = self.look(write.name)
        if isinstance(stream, Outcome):
            return stream
        outcome = self._judge(stream, write)
        if outcome is Outcome.APPLIED:
            stream.writes += 1
            stream.entries += [(stream.writes, data) for data in write.entries]
            stream.closed = write.close
            if write.entries:
                stream.updated_at = self.now
            if write.writer_seq is not None:
                stream.writer_seq = write.writer_seq
            if write.producer is not None:
                stream.producers[write.producer.id] = (write.producer.epoch, write.producer.seq)
            self.touch(stream)
        return outcome

    def _judge(self, stream: ModelStream, write: Write) -> Outcome:
        numbers = None if write.producer is None else self._numbers(stream, write.producer)
        if numbers in (Outcome.OLD_EPOCH, Outcome.DUPLICATE):
            return numbers
        if stream.closed:
            if write.close and not write.entries and write.producer is None:
                return Outcome.DUPLICATE
            return Outcome.CLOSED
        fits = write.content_type == stream.content_type
        if write.content_type is None:
            fits = stream.content_type != "application/json"
        if write.entries and not fits:
            return Outcome.WRONG_TYPE
        if numbers is not None:
            return numbers
        if (
            write.writer_seq is not None
            and stream.writer_seq is not None
            and write.writer_seq <= stream.writer_seq
        ):
            return Outcome.OLD_SEQ
        return Outcome.APPLIED

    @staticmethod
    def _numbers(stream: ModelStream, producer: Producer) -> Outcome | None:
        epoch, seq = stream.producers.get(producer.id, (None, -1))
        if epoch is None:
            return None if producer.seq == 0 else Outcome.SEQ_GAP
        if producer.epoch != epoch:
            if producer.epoch < epoch:
                return Outcome.OLD_EPOCH
            return None if producer.seq == 0 else Outcome.BAD_EPOCH
        if producer.seq <= seq:
            return Outcome.DUPLICATE
        return None if producer.seq == seq + 1 else Outcome.SEQ_GAP

    def delete(self, name: str) -> Outcome:
        stream = self.look(name)
        if isinstance(stream, Outcome):
            return stream
        stream.deleted = True
        self._collect()
        return Outcome.APPLIED

    def _sweep(self) -> None:
        for stream in self.streams.values():
            if stream.due is not None and stream.due <= self.now:
                stream.deleted = True
        self._collect()

    def _collect(self) -> None:
        while over := [name for name, stream in self.streams.items() if stream.deleted and not stream.forks]:
            for name in over:
                stream = self.streams.pop(name)
                if stream.source is not None:
                    stream.source.forks -= 1
