"""The OpenAI-compatible API: `/v1`, as the clients of that API know it."""
