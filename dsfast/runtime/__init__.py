"""The daemons: sockets, processes, membership and turns around the engines."""
