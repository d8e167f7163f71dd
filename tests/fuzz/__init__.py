"""Damaged inputs for everything that reads."""
