"""The command line: `ppvi fit model.py --data data.csv` and its neighbours, a thin layer over the library.

`failures` says what was wrong in one line; `words` reads the small language of options, `sources` the user's Python files,
`tables` and `arguments` data; `options` holds what commands are asked, `problems` makes programs, data and objectives of it;
`runs` are folders of what was found, `pages` shows them; `app` has the commands. Importing ppvi loads none of this.
"""


def main() -> None:
    """The entry point of `ppvi`."""
    from ppvi.cli.app import app

    app(prog_name="ppvi")
