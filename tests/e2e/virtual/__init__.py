"""The whole house in one process, on a virtual clock: the rooms' own handlers, stores, relays and timers, driven one
step after another. What costs real time or real models stands in: training, engines, artifacts, the broker."""
