"""What is declared: networks, protocols, findings, tables. Pydantic only, no torch."""
