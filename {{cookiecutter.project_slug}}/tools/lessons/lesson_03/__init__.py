"""Lesson 3: Content Security Policy."""
