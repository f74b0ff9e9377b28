"""State and election in ZooKeeper."""
