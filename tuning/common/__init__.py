"""Values that several layers share, and small infrastructure."""
