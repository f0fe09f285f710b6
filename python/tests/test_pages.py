"""The Python blocks of the pages, run against a live guest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import StartGuest

_ROOT = Path(__file__).resolve().parent.parent.parent


def blocks(page: str) -> list[str]:
    """The fenced blocks of Python."""
    parts = (_ROOT / page).read_text().split("```python\n")[1:]
    return [part.split("\n```\n", 1)[0] for part in parts]


@pytest.mark.parametrize("page", ["python/README.md", "Guide/src/programs.md"])
def test_the_programs_of_the_pages_run(
    page: str, start: StartGuest, elf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("elftools", reason="pyelftools is not installed")
    programs = blocks(page)
    assert programs
    for program in programs:
        guest = start()
        for shown, real in (("unix:/run/me/vm.rpc", guest.address), ("demo-guest.elf", str(elf))):
            assert program.count(shown) == 1
            program = program.replace(shown, real)
        exec(compile(program, page, "exec"), {})
        assert re.search(r"/(main|machine)\.c:\d+", capsys.readouterr().out)
        guest.end()
