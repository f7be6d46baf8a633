"""Files, folders, tables and the hub, read as samples."""
