"""A static site of a scan: a page a unit, a wall a layer, circuits, and a search that runs in the browser."""
