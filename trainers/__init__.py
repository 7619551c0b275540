"""Tasks, teachers, the proxy, full training, costs and compact networks. Needs torch only."""
