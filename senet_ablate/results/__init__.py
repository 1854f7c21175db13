"""What lies in `results/<study>/`: records, leases, plans, and what is wanted of a study. No torch."""
