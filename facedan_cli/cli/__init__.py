"""The command line: one module for each command, and the only room that prints.

`app` lists the commands and turns errors into messages and exit codes; `command` makes a command's signature from the
fields of its configuration; `options` reads facedan.toml, `--config` and the environment; `console` prints.
"""
