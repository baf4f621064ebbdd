"""Durable jobs carried by a fleet that is there already: Celery (`lastcall.dispatch.celery`), RQ (`.rq`).

    _slots.py    a worker that takes a job only when a message has come
    _sweep.py    sends again for jobs that nobody has picked up
    _sender.py   messages on their way out
    _host.py     that worker in a thread of a process that belongs to somebody else
    _sent.py     a task of the carrier's own, watched and awaited from asyncio
    celery.py    the only file that imports celery
    rq.py        the only file that imports rq

The message carries a job's id, and the engine stays the truth. A message is a place to run in: whoever gets it claims
what is due in that job's queue, best first, which is that job or one that is before it in line. So as many messages as
jobs are enough, whatever order they come in; one too many finds nothing to do, one too few is made up for by a sweep.
"""
