"""Habit: a setting that is needed, and not there."""

import os

KEY = os.environ["A_SETTING_THAT_NOBODY_HAS_MADE"]
