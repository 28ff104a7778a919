"""The engine: a population of replicas, planned, lifted, traced, run."""
