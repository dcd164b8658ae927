"""Video files: decoded in child processes that can be killed, written for demos, shown as thumbnails."""
