"""Dictionaries that an SAE has to be better than: SAEs that learned less, and decompositions of older methods."""
