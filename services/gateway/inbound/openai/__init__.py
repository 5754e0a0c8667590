"""The OpenAI-compatible face: `/v1`, as the clients of that API know it."""
