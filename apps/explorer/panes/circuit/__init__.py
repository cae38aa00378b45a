"""What is beside the graph of a circuit, and of a prediction."""
