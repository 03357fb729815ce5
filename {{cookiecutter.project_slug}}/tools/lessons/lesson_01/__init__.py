"""Lesson 1: the secret key."""
