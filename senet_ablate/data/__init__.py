"""Images: data sets, folders, batches, transforms."""
