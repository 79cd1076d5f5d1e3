"""Stores LangGraph's checkpoints.

``names`` maps threads to namespaces and keys, ``records`` has the stored form of checkpoints and writes, ``fence``
refuses a writer that another one overtook, and ``lifetime`` keeps a thread's TTL. ``reads``, ``listing``, ``history``,
``writes`` and ``upkeep`` have the logic of the saver's methods. ``snapshot`` reads a whole thread for ``upkeep``.
"""
