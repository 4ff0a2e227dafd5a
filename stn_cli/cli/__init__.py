"""The command line: options → frozen structures → library. Nothing heavy is imported before a command needs it."""
