"""State of the Python process during a count: patches, signal handlers and library versions.

In: functions and flags of libraries by name. Out: patches that act in the counting thread only,
interruptions that reach the caller, errors about changed libraries. May import ``errors``.
"""
