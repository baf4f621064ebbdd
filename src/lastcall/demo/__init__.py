"""What ``lastcall demo`` runs: a text analyser, and the FastAPI service around it.

General layout (imports go up this list only):

    corpus.py      which files there are, and which are left out and why
    reading.py     bytes to text: bounded, encodings, binary files, kinds
    structure.py   headings and code definitions
    terms.py       words, term counts, tf-idf
    similar.py     files that are nearly the same
    summary.py     the sentences that say most
    analysis.py    one file: all of the above
    report.py      all files: the report, as JSON and as a text to read out
    app.py         the service; the file to copy from

Everything above ``app.py`` is plain, synchronous Python that knows nothing of asyncio.
"""
