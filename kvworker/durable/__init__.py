"""What callers build on the store: leases and semaphores.

The package needs only a facade, with a queue or without one. Facades import it when a method of theirs needs it.
"""
