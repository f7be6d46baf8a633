"""The operating system: files, memory, versions, text, progress. Nothing here knows about LSI."""
