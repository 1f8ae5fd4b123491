"""The same examples in every run: a change is judged by what it changes, not by the dice."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
