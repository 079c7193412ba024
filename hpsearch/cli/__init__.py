"""The command line: options and help, one call, printing."""
