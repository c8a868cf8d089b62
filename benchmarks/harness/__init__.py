"""Candidates in processes of their own, measured in turn. Imports nothing, because startup times include this file."""
