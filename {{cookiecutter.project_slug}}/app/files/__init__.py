"""Uploaded files: their names, their content, and the virus scanner. Used by app/security/uploads.py."""
