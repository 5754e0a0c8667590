"""HTTP and gRPC servers: errors, paging and what every request has in common."""
