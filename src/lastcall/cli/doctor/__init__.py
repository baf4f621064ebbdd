"""``lastcall doctor``: what will go wrong at the next deploy, and why.

General layout:

    _facts         what is known: plain values
    _server_words  a server's command line as facts; pure
    _manifest      a Kubernetes manifest as facts; the only file that imports yaml
    _gather        the facts, from the app, the files and the store
    _finding       what is found
    _limits _servers _probes _store    the checks, pure; _checks is their table
    _report        findings for people and for scripts
"""
