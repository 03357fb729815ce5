"""Lesson 2: cross-site request forgery."""
