"""The Mesos framework driver: pymesos, made safe."""
