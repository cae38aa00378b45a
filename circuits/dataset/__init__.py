"""Images through the network: scans of all units, top activating images, finding units by concept."""
