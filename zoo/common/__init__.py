"""What every floor stands on: registries, results as data, argument checks, files that are written whole."""
