"""A pool that is none of those which can carry jobs."""

from celery.concurrency.base import BasePool


class TaskPool(BasePool):
    """As gevent's and eventlet's, which are not installed: all tasks in one thread."""
