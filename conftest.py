"""Fixtures shared by tests/ and benchmarks/: real servers, started on first use and ended with the session."""

pytest_plugins = ["tests.servers.postgres", "tests.servers.zookeeper", "tests.servers.mysql"]
