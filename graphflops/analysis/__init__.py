"""Analyses of the operator records of reports."""
