"""The server's page, in a browser."""

import subprocess
from pathlib import Path

from ...browser import CHROMIUM, needs

PAGE = Path(__file__).parents[3] / "trainers" / "serving" / "server" / "page.html"
PROBE = "<script>document.title = getComputedStyle(document.getElementById('save')).display</script></body>"


@needs()
def test_nothing_is_offered_for_saving_before_there_is_a_text(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    copy = tmp_path / "page.html"
    copy.write_text(PAGE.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run([CHROMIUM, *flags, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "<title>none</title>" in shown.stdout
