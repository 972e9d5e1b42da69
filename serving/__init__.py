"""The HTTP interfaces, one router a file."""
