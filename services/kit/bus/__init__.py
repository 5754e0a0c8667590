"""Events in and out: Kafka for the services, memory for replays, one delivery policy for both."""
