"""The HTTP API: a role of its own, so that nothing a browser or script does can slow a dispatch."""
