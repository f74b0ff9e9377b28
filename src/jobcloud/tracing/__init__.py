"""OpenTelemetry traces: the spans of runs, sent to a collector by a thread of its own (docs/tracing.md)."""
