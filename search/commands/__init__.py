"""What the command line does, a module a command.

Each is also a function of the Python API; nothing is imported here, since a command loads only what
it needs.
"""
