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
    job.py         the durable job: list, analyse each file, compare; the file to copy a job from
    passages.py    search and reading over the analysed files
    answer.py      answers without a language model, by quoting
    model.py       answers with one; the only file that imports pydantic_ai
    study.py       one analysis as one process sees it: begun or found, followed to its end
    database.py    where it is kept
    app.py         the service around it; the file to copy an app from

Everything above ``job.py`` is plain, synchronous Python that knows nothing of asyncio. What the steps of the job return
(``Corpus``, ``FileAnalysis``, ``Skipped``, ``Report``) survives JSON unchanged.
"""
