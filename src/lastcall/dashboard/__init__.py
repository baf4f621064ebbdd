"""The dashboard: one page at the prefix, to be left open during a deploy.

General layout: `_app` serves the files of `static/`, as they are; these read and act through the HTTP face alone.

    app = Lastcall(app, manager, dashboard=Dashboard())  # `install` of the frameworks does so itself
"""

from ._app import Dashboard as Dashboard

__all__ = ["Dashboard"]
