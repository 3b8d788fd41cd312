"""`--provider` and its settings, which the verbs that run a bundle share."""

from __future__ import annotations

import argparse
from typing import Any

from edgeprune.cli.arguments import value, whole

PROVIDERS = ("cpu", "cuda", "tensorrt")


def add_provider(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--provider", choices=PROVIDERS, metavar="P",
        help="of onnxruntime: cpu, cuda or tensorrt (cuda for variants built for it, else cpu)")  # fmt: skip
    add("--device", type=value(whole), default=0, metavar="N", help="which GPU (0)")
    add("--engine-cache", metavar="DIR", help="where the provider tensorrt keeps the engines that it builds (nowhere)")
    add("--engine-fp16", action="store_true", help="the provider tensorrt may compute fp32 graphs in fp16")


def provider_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Model.open`."""
    return {
        "provider": args.provider,
        "device_id": args.device,
        "engine_cache_dir": args.engine_cache,
        "engine_fp16": args.engine_fp16,
    }
