"""Streams by the Durable Streams protocol, in memory.

uvicorn durable_streams:app

curl -X PUT  localhost:8000/lastcall/streams/notes -H 'content-type: text/plain'
curl -X POST localhost:8000/lastcall/streams/notes -H 'content-type: text/plain' -d 'a note '
curl 'localhost:8000/lastcall/streams/notes?offset=-1&live=sse'
"""

from fastapi import FastAPI

from lastcall.asgi import DurableStreams
from lastcall.fastapi import install
from lastcall.streams import Streams

streams = Streams()  # or jobs.streams: in the store of the jobs
app = FastAPI()
install(app, streams=DurableStreams(streams, origins=["https://app.example"]))
