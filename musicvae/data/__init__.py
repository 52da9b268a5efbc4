"""Windows of drums: loading, augmentation, and their dataset repository."""
