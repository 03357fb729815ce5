"""Lesson 6: security headers."""
