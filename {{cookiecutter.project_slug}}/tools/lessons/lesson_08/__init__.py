"""Lesson 8: rate limits."""
