"""Networks: built, counted, timed, looked into."""
