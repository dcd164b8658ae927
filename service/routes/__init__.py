"""HTTP routes by subject. Each file makes one router; app.py mounts all of them at the root and under /v1."""
