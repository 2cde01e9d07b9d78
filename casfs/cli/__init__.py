"""The `casfs` command: arguments in, text or JSON and an exit code out. Everything else lies below."""
