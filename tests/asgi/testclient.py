"""Starlette's TestClient, which warns at its import that it prefers a newer client library than most have."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient as TestClient
