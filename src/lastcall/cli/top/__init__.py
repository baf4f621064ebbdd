"""``lastcall top``: a screen that shows a running process or a database as it works, and as it drains.

General layout:

    _model    what is shown: plain values; how fast work ends
    _view     what the person at the screen has chosen; a key and a view make the next view; pure
    _sources  where the values come from: the HTTP face of a process, or a store
    _draw     the screen, drawn with rich
    _keys     single keys from a terminal

Drawn with `rich`, which the command has anyway: one screen with a list and a few keys needs no framework of its own,
and a frame can be printed once, into a pipe, as it stands.
"""
