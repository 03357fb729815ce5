"""The lessons: let an attack win, fix the app, and be told whether the fix holds. See ``docs/lessons/``."""
