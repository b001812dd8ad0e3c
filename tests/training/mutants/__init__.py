"""The mistakes that the specifications name, as edits of the code: each must make a test fail.

Every module here has `MUTANTS`, a list of (file, text that stands there once, what to put in its place, pytest node
that must then fail). `test_mutants.py` makes each of them in a copy of the sources.
"""
