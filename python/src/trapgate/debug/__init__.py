"""The messages of the debug protocol, by their versions."""
