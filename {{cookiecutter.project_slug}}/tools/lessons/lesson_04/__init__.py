"""Lesson 4: session cookies."""
