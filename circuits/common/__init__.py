"""What every room uses: results, provenance, statistics, argument checks, registries, folders of results."""
