"""Lesson 7: safe template rendering."""
