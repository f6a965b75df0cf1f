"""Translation: data, task, plan rules, evaluation and reports.

The public names are exported by ``flambeau_text``.
"""

__all__: list[str] = []
