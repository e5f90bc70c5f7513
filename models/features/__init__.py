"""Features of the frozen prefix: computed once, cached, and shared by all trials and later searches."""
