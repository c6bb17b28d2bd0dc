"""``python -m headgate``: the same as the ``headgate`` command. Nothing else; see :mod:`headgate.cli`."""

from headgate.cli import main

if __name__ == "__main__":
    main()
