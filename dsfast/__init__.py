"""dsfast: a distributed scheduler for DAG workflows. Masters decide, workers run, a SQL database remembers."""

__version__ = "0.1.0"
