"""The report of a sweep in headless Chromium, without a network: it draws, it sorts, it asks for nothing."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import edgeprune
from tests.cli.test_sweep import FEW, with_random, write_data
from tests.runtime import tiny_graphs

pytest.importorskip("plotly")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quiet_machine"),
    pytest.mark.skipif(CHROMIUM is None, reason="headless Chromium is not installed (Debian: chromium)"),
]
#: sorts by TTFT twice, then leaves what a reader sees in the title, and what went wrong, which --dump-dom gives back.
PROBE = """
<script>
const wrong = [];
document.addEventListener("securitypolicyviolation", (event) => wrong.push(event.violatedDirective));
window.addEventListener("error", (event) => wrong.push(event.message));
window.addEventListener("load", () => setTimeout(() => {
  const heads = [...document.querySelectorAll("table.sort th button")];
  const column = heads.findIndex((head) => head.textContent === "TTFT ms");
  const rows = () => [...document.querySelectorAll("table.sort tbody tr")];
  const read = () => rows().map((row) => row.cells[column].dataset.value);
  heads[column].click();
  const rising = read();
  heads[column].click();
  const found = {
    rising: rising.map(Number), falling: read().map(Number), wrong,
    dots: document.querySelectorAll("#figure-accuracy .points path.point").length,
    bars: document.querySelectorAll("#figure-stages .bars .point path").length,
    pictures: [...document.images].map((image) => image.naturalWidth),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  };
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}, 500));
</script>
"""


def chromium(profile: pathlib.Path, *argv: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000"]
    done = subprocess.run([*command, *argv], capture_output=True, text=True, timeout=600, check=True)
    return done.stdout


def test_the_report_in_a_browser(tmp_path: pathlib.Path) -> None:
    bundle = tiny_graphs.write_bundle(tmp_path / "hand.bundle", change=with_random)
    target = tmp_path / "r.html"
    argv = ["--methods", "none,best,four", "--keep", "1,0.5,0.25", "-o", target, "--json", tmp_path / "r.json"]
    done = edgeprune("sweep", bundle, write_data(tmp_path), *FEW, *argv)
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "r.json").read_text())["points"]
    text = target.read_text()
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("<head>", "<head>" + PROBE, 1))
    dom = chromium(tmp_path / "profile", "--dump-dom", probed.as_uri())
    match = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)
    assert match is not None, "the page's scripts did not run to their end"
    found = json.loads(match[1])
    assert (found["wrong"], found["loaded"]) == ([], [])
    times = sorted(point["ttft_ms"] for point in points)
    assert (found["rising"], found["falling"]) == (times, times[::-1])
    front = sum(bool(point["pareto"]) for point in points)
    assert found["dots"] == len(points) + front
    assert found["bars"] == 5 * len(points)
    assert len(found["pictures"]) == 6
    assert all(width > 100 for width in found["pictures"])
    shot = tmp_path / "r.png"
    chromium(tmp_path / "profile", "--window-size=1240,2400", f"--screenshot={shot}", target.as_uri())
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "a page with figures has colours"
