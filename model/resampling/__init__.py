"""Resizing pictures with an antialiasing filter, equal to the bit to PIL: filters, and their compiled arithmetic."""
