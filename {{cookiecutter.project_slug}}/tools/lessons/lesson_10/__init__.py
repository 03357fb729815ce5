"""Lesson 10: redirects and URLs."""
