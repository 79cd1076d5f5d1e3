"""Helpers that tests of several layers share: servers, processes, readers of documents, wrong messages."""
