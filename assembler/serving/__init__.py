"""A server for a bundle: the engine that batches requests, and the HTTP interface in front of it. No torch."""
