"""The engine: trains a population of replicas by vectorising, tracing and running their training step."""
