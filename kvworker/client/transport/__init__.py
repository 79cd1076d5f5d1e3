"""The transport of messages to workers, and of results back.

``message`` is one message with its delivery state. ``publisher`` sends messages, over Redis (``redis``) or
any other broker that kombu supports (``kombu``). ``replies`` reads the results. May import ``messaging`` and everything
below it, and nothing else of ``client``.
"""
