"""The experiments of the paper, each one command: `python -m benchmarks.paper NAME --data FOLDER`."""
