"""The dashboard: pages that show the overview, namespaces and entries, rendered on the server. Needs its extra."""
