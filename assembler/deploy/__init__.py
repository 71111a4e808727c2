"""A bundle behind other servers: Triton, Ray Serve, Kubernetes."""
