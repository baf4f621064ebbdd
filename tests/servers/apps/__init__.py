"""The applications the servers run; each is imported by a server's own process, never by a test."""
