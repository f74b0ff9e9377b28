"""The options of `jobcloud dev` reach the processes that it starts."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from jobcloud.dev.supervisor import DevOptions, _ProcessTree


def test_settings_file_reaches_the_scheduler_with_its_whole_path(tmp_path: Path) -> None:
    def command(options: DevOptions) -> list[str]:
        tree = _ProcessTree(options, tmp_path, Console())
        tree._master_port = tree._artifact_port = 1
        return tree._command("scheduler")

    file = Path("settings.toml")
    assert command(DevOptions(port=1, config=file))[-1] == f"--config={file.absolute()}"
    assert not any(word.startswith("--config") for word in command(DevOptions(port=1)))
