"""Searches for leaks and useless columns in tables, for the doctor's checks.

They read a sample of the rows (`TableSample`); a small tree (`one_column_tree`) measures what a
column alone says about the target.
"""
