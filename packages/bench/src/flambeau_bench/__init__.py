"""Benchmarks of training speed against hand-written programs.

flambeau bench list           what can be measured
flambeau bench run quick      every case at its smallest size
flambeau bench report         a table, a page and a plot of the results
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
