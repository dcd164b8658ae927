"""Collections of clips with sentences that a model can be trained on and evaluated over."""
