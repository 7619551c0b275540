"""Networks of any kind: what of them can be divided, and the smaller ones that rows are."""
