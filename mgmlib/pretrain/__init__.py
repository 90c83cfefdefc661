"""Self-supervised pretraining: how the pocket zoo came to be."""
