"""The process behind the pages: settings, security, background work, jobs."""
