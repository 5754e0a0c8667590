"""Pure rules of the gateway: which version answers, on which replica, and what a request may hold."""
