"""Evaluation: what was asked for, is it there? Is the painter still the one it was?"""
