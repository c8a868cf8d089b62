"""Candidates in processes of their own, measured in turn. Imports nothing: what it takes is a part of a start."""
