"""Who is alive: one protocol; memory, database leases and ZooKeeper behind it."""
