"""Task types: what a worker can run. Others plug in by the entry point group `dsfast.tasks`."""
