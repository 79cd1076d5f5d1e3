"""Effects under faults: callers in their own processes run durable steps, and a recorder outside counts the effects.

The recorder knows nothing of kvworker and is never killed. Each caller writes to its own file what it was told. In the
end the verdict compares these histories, the recorder's effects and the states of the steps in the store.
"""
