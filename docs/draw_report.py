"""The README's picture of a report, as headless Chromium shows it.

python docs/draw_report.py RUN FILE.webp

The picture is of the demo:

    make demo
    python docs/draw_report.py runs/demo docs/images/report.webp
"""

import html
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

NAMES = "chromium", "chromium-browser", "google-chrome"
WIDTH, HEIGHT, GAP = 1180, 1270, 16  # of each half, in the page's pixels
SECTIONS = "", "pictures"  # the top of the page, and what is shown beside it
SHRUNK = 0.55


def photographed(page: Path, section: str) -> Image.Image:
    """The page from a section on, in its light colours."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        sys.exit(f"no browser: install {NAMES[0]}")
    text = page.read_text(encoding="utf-8")
    # Not by a link's "#": what stands above the section is taken away instead.
    style = f"header, .figures, nav, .warnings, section:not(:has(#{section})) {{ display: none }}"
    if section:
        style = f"<style>{style} h2 {{ margin-top: 0 !important }}</style>"
        text = text.replace("</head>", f"{style}</head>")
    with tempfile.TemporaryDirectory() as temporary:
        outer, picture = Path(temporary) / "outer.html", Path(temporary) / "picture.png"
        frame = f'<iframe width="{WIDTH}" height="{HEIGHT}" style="border:0" srcdoc="'
        body = f'{frame}{html.escape(text)}"></iframe>'
        outer.write_text(f'<!doctype html><body style="margin:0">{body}</body>', encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--hide-scrollbars", "--disable-background-networking",
            f"--user-data-dir={temporary}/profile", "--blink-settings=preferredColorScheme=1",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", outer.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return Image.open(picture).convert("RGB")


def draw(run: Path) -> Image.Image:
    """Parts of the report beside each other."""
    parts = [photographed(run / "report.html", section) for section in SECTIONS]
    sheet = Image.new("RGB", (len(parts) * (WIDTH + GAP) - GAP, HEIGHT), "#d8d8d4")
    for number, part in enumerate(parts):
        sheet.paste(part, (number * (WIDTH + GAP), 0))
    size = round(sheet.width * SHRUNK), round(sheet.height * SHRUNK)
    return sheet.resize(size, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/draw_report.py RUN FILE.webp")
    draw(Path(sys.argv[1])).save(sys.argv[2], quality=85, method=6)
