"""How a message leaves and its reply comes back: the message, the publisher, Redis, kombu, the replies.

May import ``messaging`` and everything below it, and nothing else of ``client``.
"""
