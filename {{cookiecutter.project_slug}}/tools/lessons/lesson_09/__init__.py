"""Lesson 9: file uploads."""
