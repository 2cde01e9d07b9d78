"""The `casfs` command: arguments in, text or JSON and an exit code out.

Uses every floor below, and is used by none. State: none, each call is one command.
"""
