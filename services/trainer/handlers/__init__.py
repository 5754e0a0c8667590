"""The trainer's use cases: what asks for a run, labelled traffic, running, and what people are shown."""
