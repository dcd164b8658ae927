"""The modules that score: they hold the learnt parameters and hand them to kernels/."""
