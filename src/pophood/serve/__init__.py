"""The local server: HTTP and security around the scheduler, which only messages reach."""
