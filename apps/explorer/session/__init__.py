"""State of a visitor's view: its address, labels, links and exports."""
