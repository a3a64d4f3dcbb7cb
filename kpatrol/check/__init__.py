"""`kpatrol check` and `kpatrol resume`: acceptance of one cluster, or between two, with nothing installed in it."""
