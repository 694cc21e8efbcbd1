"""A page as headless Chromium shows it; tests that need one are skipped without."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def needs_browser(test: Callable) -> Callable:
    """Marks a test that opens pages."""
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")(test))


# What the page looks like from inside, appended to it. All within the load event, which comes after
# every picture: the browser writes the page out right after it and would not wait for a promise.
PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
addEventListener("load", () => {
  const images = [...document.querySelectorAll(".pictures img")];
  const shown = [];
  if (images.length) {
    const dialog = document.querySelector("dialog");
    const caption = dialog.querySelector("figcaption span");
    document.querySelector(".pictures button").click();
    shown.push(dialog.open, caption.textContent);
    dialog.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
    shown.push(caption.textContent);
    dialog.close();
  }
  const inside = (box) => box.width > 0 && box.left >= 0 && box.right <= document.body.clientWidth;
  const rows = [...document.querySelectorAll(".pictures tr:has(img)")];
  const height = (image) => image.getBoundingClientRect().height;
  const dots = [...document.querySelectorAll("svg circle.dot")];
  const tell = (id, text) => {
    const result = parent.document.createElement("pre");
    result.id = id;
    result.textContent = text;
    parent.document.body.append(result);
  };
  tell("dom", document.documentElement.outerHTML);
  tell("probe", JSON.stringify({
    errors, shown, images: images.map((image) => [image.naturalWidth, image.naturalHeight]),
    heights: rows.map((row) => new Set([...row.querySelectorAll("img")].map(height)).size),
    dots: dots.filter((dot) => inside(dot.getBoundingClientRect())).length,
    wide: document.documentElement.scrollWidth, window: innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
  }));
});
</script></head>
"""


def opened(page: Path, width: int, scheme: int) -> tuple[str, dict]:
    """The page as a browser has it after loading, and what the probe saw; `scheme` 1 is light."""
    text = page.read_text(encoding="utf-8").replace("</head>", PROBE, 1)
    # A frame has the width asked for; a headless window is 500 wide at least.
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(text)}">'
    outer = page.with_name("frame.html")
    outer.write_text(f"<!doctype html><body>{frame}</iframe></body>", encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={page.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},900",
        "--dump-dom", outer.as_uri(),
    ]  # fmt: skip
    browser = subprocess.run(command, capture_output=True, timeout=600, check=True, text=True)
    told = re.search(r'<pre id="dom">(.*?)</pre><pre id="probe">(.*?)</pre>', browser.stdout, re.S)
    said = browser.stderr[-2000:]
    assert told is not None, f"the page did not load: {browser.stdout[-200:]!r} {said}"
    dom, probe = map(html.unescape, told.groups())
    return dom, json.loads(probe)
