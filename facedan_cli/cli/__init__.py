"""The command line: one module a command, and the only room that speaks to the terminal.

`app` lists the commands and turns errors into messages and exit codes; `command` makes a command's signature from the
fields of its configuration; `options` reads facedan.toml, `--config` and the environment; `console` prints.
"""
