"""Renderings of reports: text, tables, Markdown, HTML, JSON, CSV. They never change a number.

In: a report, through the protocols of ``render.protocols``, or records. Out: text or plain data.
May import ``analysis``, ``pricing``, ``core`` and what is below them; no report class.
"""
