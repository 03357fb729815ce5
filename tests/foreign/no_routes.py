"""Habit: an app that only serves its static files."""

from flask import Flask

app = Flask(__name__)
