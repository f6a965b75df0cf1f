"""Training speed against hand-written programs: fair pairs, a noise floor, and gates first.

flambeau bench list           what can be measured
flambeau bench run quick      every case, small
flambeau bench report         a table, a page and a figure of what was measured
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
