"""Lesson 5: error handling."""
