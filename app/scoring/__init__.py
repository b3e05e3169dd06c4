"""Scoring of whole files; see score_file.py."""
