"""The words all rooms share: names, errors, events, artifacts and the generated gRPC stubs."""
