"""What `lastcall worker bench.fleet.app:jobs` runs: one release of the fleet's code, told where it is by a variable."""

from __future__ import annotations

import logging

from lastcall.jobs import Jobs
from tests.jobs.crash.ledger import Ledger
from tests.jobs.crash.programs import make_unknown

from .place import read_place
from .stores import writer_of
from .work import FleetWork

place = read_place()
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
ledger = Ledger(place.ledger, pid=place.number)
ledger.write("boot", f"r{place.release} {'far' if place.far else 'near'} {place.door}")
if place.far:
    make_unknown()
jobs = Jobs(place.url, lease_seconds=place.lease_seconds)
work = FleetWork(jobs, ledger, place.ledger, writer_of(place.url), place.release + 1)
