"""Contact sheets: python -m samples.kiosk.data.pictures --out out/kiosk/sheet"""

import argparse
from pathlib import Path

from samples.kiosk.data.pictures.sheet import make_sheets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.kiosk.data.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/kiosk/sheet"), help="folder for PNGs and MP4s")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for path in make_sheets(given.out, given.seed):
        print(path)


if __name__ == "__main__":
    main()
