"""The circuit explorer, in the browser: `circuits explore`. Pages read widgets and call the library."""
