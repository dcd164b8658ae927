"""The bundled tiny model: drawn moving shapes, the recipe that trains on them, and its weights."""
