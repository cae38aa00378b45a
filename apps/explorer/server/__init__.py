"""The server: settings, security, background work and jobs."""
