"""Images and labels: label spaces, data sets, the rendered streets, loading and augmentation."""
