"""The command ``headgate completion``: prints the script that teaches a shell to complete ``headgate``. Next: completion.py."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the script for completion in a shell.

    It completes commands, options, and the endpoints and versions that the gateway knows.

    \b
    Example:
      eval "$(headgate completion bash)"
      headgate completion zsh > ~/.zfunc/_headgate
      headgate completion fish > ~/.config/fish/completions/headgate.fish
    """
    from headgate.cli import main

    made = get_completion_class(shell)
    if made is None:
        raise LookupError(f"click knows no {shell}")
    script = made(main, {}, "headgate", "_HEADGATE_COMPLETE").source()
    # click's script for fish cuts a description at its first comma.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'))
