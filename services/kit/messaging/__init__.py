"""Kafka for the services, memory for the virtual loop: consumers, the producer, one retry policy, dead letters."""
