"""A content-addressed cache on disk."""
