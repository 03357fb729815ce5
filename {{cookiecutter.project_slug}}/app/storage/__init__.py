"""Uploaded files: what proves their type, makes their names fit, scans them and keeps them."""
