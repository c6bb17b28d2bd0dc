from __future__ import annotations

from pathlib import Path

from headgate.cli import COMMANDS
from headgate.cli.reference import page
from headgate.gateway.settings_table import SETTINGS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"


def test_the_committed_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m headgate.cli.reference > docs/reference/cli.md"
    )


def test_the_page_has_every_command_and_every_setting() -> None:
    text = page()
    for name in COMMANDS:
        assert f"\n## headgate {name}\n" in text
    for setting in SETTINGS:
        assert f"`{setting.variable}`" in text


def test_the_page_names_no_folder_of_the_machine_it_was_made_on() -> None:
    assert str(Path.home()) not in page()
