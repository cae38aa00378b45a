"""Renderers of the sections of a dossier, by section; each file is found and loaded by itself."""
