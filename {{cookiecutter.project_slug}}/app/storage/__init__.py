"""Uploaded files: verifying their type, sanitizing their names, scanning and storing them."""
