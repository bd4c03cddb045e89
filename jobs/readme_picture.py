"""Take the README's picture of the report: `python jobs/readme_picture.py runs/demo` after `make demo`.

Needs a headless Chromium on the PATH (Debian: `apt-get install chromium`).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parents[1] / "dynacor_ray" / "guides" / "report.png"
WIDTH, HEIGHT, COLORS = 1280, 900, 128
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    f"--window-size={WIDTH},{HEIGHT}",
)


def take_picture(report: Path, picture: Path) -> None:
    """Write what a window of 1280 x 900 pixels shows of a page, in few colors to keep the file small."""
    browser = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("Expected chromium on the PATH, but got none; install it, on Debian: apt-get install chromium.")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        places = (f"--user-data-dir={folder}/profile", f"--screenshot={shot}", report.resolve().as_uri())
        subprocess.run([browser, *FLAGS, *places], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(COLORS).save(picture, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--out", type=Path, default=PICTURE)
    asked = parser.parse_args()
    take_picture(asked.run / "report.html", asked.out)
    print(f"{asked.out}: {asked.out.stat().st_size:,} bytes")
