"""Small apps of our own, each with a habit of public Flask apps, for ``tests/test_foreign.py``."""
