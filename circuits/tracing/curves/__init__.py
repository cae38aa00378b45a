"""How much of a target circuits of each size keep, beside random circuits."""
