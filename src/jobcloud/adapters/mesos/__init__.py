"""The Mesos framework driver, based on pymesos."""
