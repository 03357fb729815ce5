"""The documentation site: ``hook.py`` brings the pages that are kept elsewhere, ``reference.py`` writes others."""
