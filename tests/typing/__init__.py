"""A user's program, for type checkers that see the installed wheel alone."""
