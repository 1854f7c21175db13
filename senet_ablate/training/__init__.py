"""One run: trained, evaluated once, written."""
