"""Bytes to values and back: the one schema that server and client share. No I/O, no TensorFlow.

outline.py    a msgpack body's claims, checked before anything is built from it
plain.py      bytes <-> maps, lists, text and numbers, in msgpack or JSON
nested.py     nested lists of numbers <-> arrays
tensors.py    {"dtype", "shape", "data"} <-> arrays
messages.py   requests, replies and problems
streams.py    a large reply in pieces, its length known before its numbers
"""
