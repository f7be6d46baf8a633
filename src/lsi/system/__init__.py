"""The operating system: files, memory, versions, text, progress. Nothing of LSI."""
