"""How a message leaves and how its reply comes back.

``message`` is one message and what is known about its delivery. ``publisher`` sends messages, over Redis (``redis``) or
any other broker that kombu supports (``kombu``). ``replies`` reads the results. May import ``messaging`` and everything
below it, and nothing else of ``client``.
"""
