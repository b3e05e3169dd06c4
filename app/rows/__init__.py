"""Rows as clients send them, as the contract says."""
