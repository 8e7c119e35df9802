"""What is derived from the records of a report."""
