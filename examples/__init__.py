"""A queue-driven agent pipeline that keeps its shared state in kvworker, and a program that demonstrates it."""
