"""Habit: a name that is no app, a factory that stops or wants an argument, and one that gives nothing."""

import sys

app = "not an app"


def stops():
    sys.exit("no settings")


def wants(config):
    return config


def gives_nothing():
    return None
