"""Features of the frozen prefix, computed once and shared by all trials and later searches."""
