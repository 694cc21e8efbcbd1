"""What a run and its results look like: the run page, comparisons, ablations, charts."""
