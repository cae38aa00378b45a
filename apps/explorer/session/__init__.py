"""What a visitor looks at: address, labels, links, exports."""
