"""Public counting functions: ``count``, ``count_training`` and ``count_generation``.

In: a model in any form, its inputs and options. Out: a report. May import ``models``,
``reports``, ``analysis``, ``capture``, ``conventions`` and everything below them.
"""
