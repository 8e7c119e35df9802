"""Renderings of a report. They format; they never change a number."""
